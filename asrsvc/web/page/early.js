"use strict";
// Before the first paint: the chosen theme, and nothing shown in the wrong language.
{
  const root = document.documentElement;
  try {
    const theme = localStorage.getItem("asrsvc.theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch {
    // storage may be forbidden: then the system's theme it is
  }
  root.classList.add("waiting");
  setTimeout(() => root.classList.remove("waiting"), 1000);
}
