// Small things that the browser keeps for the page. It may be told not to: then they are forgotten.

export function kept(storage, name) {
  try {
    return globalThis[storage].getItem(`asrsvc.${name}`);
  } catch {
    return null;
  }
}

export function keep(storage, name, value) {
  try {
    if (value === null) globalThis[storage].removeItem(`asrsvc.${name}`);
    else globalThis[storage].setItem(`asrsvc.${name}`, value);
  } catch {
    // forgotten with the page
  }
}
