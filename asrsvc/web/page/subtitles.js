// Segments to subtitles, in the browser: a transcript can be saved when the server has gone.
//
// The same rules as asrsvc/speech/subtitles.py, which gives their sources, function by function; a test
// compares what the two write.

const LINE_WIDTH = 42;
const LONGEST_SECONDS = 7;
const FULL_WIDTH = LINE_WIDTH / 16;
const SHORTEST_SECONDS = 5 / 6;
const PAUSE_SECONDS = 1;
const BREATH_SECONDS = 0.25;
const ENOUGH = 0.5;
const ENDS_SENTENCE = new Set("。．！？!?…");
const ENDS_CLAUSE = new Set("，、；：,;:");
const CLOSING = new Set("\"'”’」』）)】〕〉》]}");
const NOT_FIRST = new Set([
  ..."ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶー々〻゛゜ゝゞヽヾ%％℃°",
  ...ENDS_SENTENCE, ...ENDS_CLAUSE, ...CLOSING,
]);
const ABBREVIATION = /(?:^|[^\p{L}\p{N}_])(?:[A-Za-z]\.)+$|(?:^|[^\p{L}\p{N}_])(?:Mr|Mrs|Ms|Dr|St|vs|No)\.$/u;
const WIDE = /[\u1100-\u115f\u231a\u231b\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6b\uff01-\uff60\uffe0-\uffe6\u{1b000}-\u{1b2fb}\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]/u;

export function toSrt(segments) {
  const blocks = cues(segments).map((cue, index) =>
    `${index + 1}\n${clock(cue.start, ",")} --> ${clock(cue.end, ",")}\n` +
    // The arrow would be read as a line of times.
    cue.lines.map((line) => line.replaceAll("-->", "→")).join("\n"));
  return blocks.length ? `${blocks.join("\n\n")}\n` : "";
}

export function toVtt(segments) {
  const escaped = (line) => line.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const blocks = cues(segments).map((cue) =>
    `${clock(cue.start, ".")} --> ${clock(cue.end, ".")}\n${cue.lines.map(escaped).join("\n")}`);
  return `${["WEBVTT", ...blocks].join("\n\n")}\n`;
}

// What is shown at one time: [{ start, end, lines }], in order, without overlap.
export function cues(segments) {
  const rough = segments.flatMap(cuesOf);
  const result = [];
  rough.forEach((cue, index) => {
    const start = result.length ? Math.max(cue.start, result.at(-1).end) : cue.start;
    let end = Math.max(cue.end, start + 0.001);
    if (index + 1 < rough.length) {
      const follower = Math.max(rough[index + 1].start, start + 0.001);
      end = Math.min(Math.max(end, start + SHORTEST_SECONDS), follower);
    }
    result.push({ start: thousandths(start), end: thousandths(end), lines: cue.lines });
  });
  return result;
}

function cuesOf(segment) {
  let pieces = piecesOf(segment);
  const found = [];
  while (pieces.length) {
    const count = lengthOfCue(pieces);
    const shown = pieces.slice(0, count);
    pieces = pieces.slice(count);
    found.push({ start: shown[0].start, end: shown.at(-1).end, lines: linesOf(shown) });
  }
  return found;
}

function piecesOf(segment) {
  const text = segment.text.replace(/\s+/gu, " ").trim();
  const pieces = [];
  let begin = 0;
  const words = (segment.words ?? []).map((word) => ({ ...word, written: word.word.replace(/\s+/gu, " ") }));
  words.forEach((word, index) => {
    const at = text.indexOf(word.written, begin);
    if (at < 0) return;
    const follower = words[index + 1]?.written;
    let stop = follower === undefined ? text.length : text.indexOf(follower, at + word.written.length);
    if (stop < 0) stop = at + word.written.length;
    pieces.push(...cut({ text: text.slice(begin, stop), start: word.start, end: word.end }));
    begin = stop;
  });
  if (!pieces.length) return text ? cut({ text, start: segment.start, end: segment.end }) : [];
  pieces.at(-1).text += text.slice(begin);
  return pieces;
}

function cut(piece) {
  const bare = piece.text.trim();
  if (width(bare) <= LINE_WIDTH) return [piece];
  const parts = bare.includes(" ") ? piece.text.match(/\S+\s*/gu) : [...piece.text];
  const seconds = (piece.end - piece.start) / width(piece.text);
  const result = [];
  let done = 0;
  for (const part of parts) {
    const start = piece.start + done * seconds;
    done += width(part);
    const one = { text: part, start, end: piece.start + done * seconds };
    if (parts.length > 1) result.push(...cut(one));
    else result.push(one);
  }
  return result;
}

function lengthOfCue(pieces) {
  let most = 1;
  while (most < pieces.length) {
    if (gap(pieces, most) >= PAUSE_SECONDS) return most;
    if (sentenceEnds(pieces[most - 1].text) && filled(pieces.slice(0, most))) return most;
    if (!fits(pieces.slice(0, most + 1))) break;
    most += 1;
  }
  if (most === pieces.length) return most;
  let [best, bestScore] = [most, -1];
  for (let count = Math.max(1, Math.floor(most / 2)); count <= most; count += 1) {
    if (!mayBreak(pieces, count)) continue;
    let score = count / most;
    score += ENDS_CLAUSE.has(lastOf(pieces[count - 1].text)) ? 2 : 0;
    score += gap(pieces, count) >= BREATH_SECONDS ? 1 : 0;
    score += sentenceEnds(pieces[count - 1].text) ? 3 : 0;
    if (score > bestScore) [best, bestScore] = [count, score];
  }
  return best;
}

const gap = (pieces, at) => pieces[at].start - pieces[at - 1].end;

const filled = (pieces) =>
  pieces.reduce((sum, piece) => sum + width(piece.text), 0) >= ENOUGH * LINE_WIDTH ||
  pieces.at(-1).end - pieces[0].start >= PAUSE_SECONDS;

function fits(pieces) {
  if (pieces.at(-1).end - pieces[0].start > LONGEST_SECONDS) return false;
  return width(textOf(pieces)) <= LINE_WIDTH || breakOf(pieces) !== null;
}

function linesOf(pieces) {
  if (width(textOf(pieces)) <= LINE_WIDTH) return [textOf(pieces)];
  const at = breakOf(pieces);
  return at === null ? [textOf(pieces)] : [textOf(pieces.slice(0, at)), textOf(pieces.slice(at))];
}

function breakOf(pieces) {
  let best = null;
  for (let at = 1; at < pieces.length; at += 1) {
    const [first, second] = [width(textOf(pieces.slice(0, at))), width(textOf(pieces.slice(at)))];
    if (Math.max(first, second) > LINE_WIDTH || !mayBreak(pieces, at)) continue;
    const ending = lastOf(pieces[at - 1].text);
    const marked = ENDS_SENTENCE.has(ending) || ENDS_CLAUSE.has(ending);
    const cost = Math.abs(first - second) - (marked ? LINE_WIDTH / 2 : 0);
    if (best === null || cost < best.cost) best = { cost, at };
  }
  return best?.at ?? null;
}

const mayBreak = (pieces, at) => !NOT_FIRST.has([...pieces[at].text][0]);
const lastOf = (text) => [...text.trimEnd()].at(-1);
const textOf = (pieces) => pieces.map((piece) => piece.text).join("").trim();

function sentenceEnds(text) {
  const characters = [...text.trimEnd()];
  while (characters.length && CLOSING.has(characters.at(-1))) characters.pop();
  const bare = characters.join("");
  return bare.endsWith(".") ? !ABBREVIATION.test(bare) : ENDS_SENTENCE.has(characters.at(-1));
}

function width(text) {
  let sum = 0;
  for (const character of text) {
    if (WIDE.test(character)) sum += FULL_WIDTH;
    else if (!/\p{Mn}/u.test(character)) sum += 1;
  }
  return sum;
}

// As Python rounds: to the nearest of the exact value, and from the very middle to the even one.
function thousandths(seconds) {
  const middle = Math.abs(seconds * 16) % 2 === 1; // only an odd sixteenth lies there
  if (!middle) return Number(seconds.toFixed(3));
  const below = Math.floor(seconds * 1000);
  return (below + (below % 2)) / 1000;
}

function clock(seconds, point) {
  const all = Math.max(0, Math.round(seconds * 1000));
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(all / 3_600_000), Math.floor(all / 60_000) % 60, all % 60_000];
  return `${two(hours)}:${two(minutes)}:${two(Math.floor(rest / 1000))}${point}${String(rest % 1000).padStart(3, "0")}`;
}
