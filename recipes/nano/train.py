"""Train for a given time on one or several CPU processes; one call is one stage.

Writes into the run's folder: conf.json (the architecture), log.txt, ck_SECONDS.pt every minute and
last.pt at the end. A checkpoint holds `model` (weights), `ema` (their running mean), `step`, `t`
(seconds) and `hours` (of sound seen).

Two processes of one thread each are faster than one of two threads. Without avx512_bf16, --no-bf16 is
three times faster; with it, bf16 is 2.4 times faster.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from numpy.random import Generator

from recipes.nano import workfolder
from recipes.nano.augment import NoiseBank
from recipes.nano.batches import Batch, BatchMaker
from recipes.nano.features import FeatureSets
from recipes.nano.losses import Losses, compute_losses
from recipes.nano.model import Architecture, build, forward, use_fast_dropout
from recipes.nano.sampling import ENGINE_WEIGHTS, NONSPEECH, Sampler
from recipes.nano.schedule import Schedule
from recipes.nano.scoring import Cmvn, DevBatch, dev_batches, score
from recipes.nano.workfolder import WorkFolder

_LOG_EVERY: Final = 50
"""Steps."""
_AVERAGE_EVERY: Final = 10
"""Steps between two updates of the running mean."""
_SCORE_SECONDS: Final = 240
_CHECKPOINT_SECONDS: Final = 60
_FRAME_SECONDS: Final = 0.06


def measure_cmvn(maker: BatchMaker, sets: FeatureSets, rng: Generator, path: Path) -> None:
    """Mean and standard deviation of augmented training features, unless the file is there."""
    if path.exists():
        return
    frames = []
    for _ in range(60):
        batch = maker.make(list(rng.integers(0, len(sets), 32)), NONSPEECH)
        frames += [row[:length] for row, length in zip(batch.features, batch.lengths, strict=True)]
    stacked = torch.cat(frames)
    np.savez(path, mean=stacked.mean(0).numpy(), std=stacked.std(0).numpy())


def average_gradients(net: torch.nn.Module, processes: int) -> None:
    """Give every process the mean of all processes' gradients, in one message."""
    parameters = [parameter for parameter in net.parameters() if parameter.grad is not None]
    joined = torch.cat([parameter.grad.view(-1) for parameter in parameters])
    torch.distributed.all_reduce(joined)
    joined /= processes
    first = 0
    for parameter in parameters:
        count = parameter.numel()
        parameter.grad.copy_(joined[first : first + count].view_as(parameter))
        first += count


def optimizer_for(net: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW; no weight decay on vectors and embeddings."""
    decayed, plain = [], []
    for name, parameter in net.named_parameters():
        (decayed if parameter.ndim > 1 and "embed" not in name else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=False, foreach=True)


class Stage:
    """One process of one stage of training."""

    def __init__(self, args: argparse.Namespace, rank: int) -> None:
        import sentencepiece

        self.args = args
        self.rank = rank
        folder: WorkFolder = args.root
        self.vocabulary = sentencepiece.SentencePieceProcessor(str(folder.sentencepiece_model))
        pieces = self.vocabulary.get_piece_size()
        architecture = Architecture(args.width, args.feed_forward, args.blocks, args.top_blocks, args.dropout)
        if rank == 0:
            architecture.save(args.run / "conf.json")
        self.net = use_fast_dropout(build(pieces, architecture))
        self.sets = FeatureSets(folder.data, args.sets)
        seed = (int(time.time()) if args.seed is None else args.seed) + 777 * rank
        bank = NoiseBank(folder.noise_bank("train"))
        self.maker = BatchMaker(self.sets, self.vocabulary, bank, seed % 10000)
        self.rng = np.random.default_rng(seed)
        if rank == 0:
            measure_cmvn(self.maker, self.sets, self.rng, folder.cmvn)
        if args.processes > 1:
            torch.distributed.barrier()
        self.cmvn = Cmvn.load(folder.cmvn)
        self.sampler = Sampler(self.sets, ENGINE_WEIGHTS | args.weights, args.languages, self.rng)
        self.optimizer = optimizer_for(self.net, args.lr)
        self.mean_weights = self._weights()
        self.step = 0
        self.seconds_seen = 0.0
        if args.init:
            stored = torch.load(args.init)
            self.net.load_state_dict(stored["model"])
            self.mean_weights = {name: value.clone() for name, value in stored["ema"].items()}

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone().float() for name, value in self.net.state_dict().items()}

    def indices(self) -> Iterator[list[int]]:
        """Batches without end."""
        while True:
            # small batches while augmentation still grows: more steps early
            small = self.maker.strength < 0.9 and self.args.ramp
            yield from self.sampler.draw_pool(self.args.frames * (0.55 if small else 1))

    def dev_sets(self) -> list[DevBatch]:
        """Forty utterances of every language of every development set that is there."""
        batches: list[DevBatch] = []
        for name in ("dev_seen", "dev_held"):
            if not (self.args.root.data / f"{name}.json").exists():
                continue
            sets = FeatureSets(self.args.root.data, [name])
            languages: dict[str, list[int]] = {}
            for index, entry in enumerate(sets.entries):
                languages.setdefault(entry["lang"], []).append(index)
            for order in languages.values():
                batches += dev_batches(sets, name.removeprefix("dev_"), order[:40], 20, 0, 0.0)
        return batches

    def run(self) -> None:
        """Train until the time or the steps are over."""
        args = self.args
        log = (args.run / "log.txt").open("a", encoding="utf-8") if self.rank == 0 else None
        try:
            self._train(log)
        finally:
            if log:
                log.close()

    def _train(self, log: TextIO | None) -> None:
        args = self.args
        schedule = Schedule(
            args.minutes * 60, args.lr, args.warm, args.ramp, args.flat, args.greatest_strength
        )
        dev = self.dev_sets() if log else []
        if log:
            parameters = sum(parameter.numel() for parameter in self.net.parameters())
            shares = {key: round(value, 3) for key, value in sorted(self.sampler.shares.items())}
            tell(log, f"{parameters / 1e6:.2f} M parameters; shares {json.dumps(shares)}")
        start = last_score = last_checkpoint = time.monotonic()
        sums = np.zeros(4)
        making = 0.0
        self.net.train()
        for indices in self.indices():
            now = time.monotonic()
            elapsed = self._agree(now - start)
            progress = elapsed / schedule.total
            if progress >= 1 or self.step == args.max_steps:
                break
            rate = schedule.learning_rate(self.step, progress)
            self.maker.strength = schedule.strength(elapsed)
            batch = self.maker.make(indices, NONSPEECH)
            making += time.monotonic() - now
            sums += self._advance(batch, rate, schedule.flat_weight(elapsed)).summary()
            if log is None:
                continue
            self._average_weights()
            now = time.monotonic()
            if self.step % _LOG_EVERY == 0:
                tell(log, self._progress(now - start, rate, sums / _LOG_EVERY, making))
                sums[:] = 0
            if now - last_score > _SCORE_SECONDS:
                tell(log, self._score(dev))
                last_score = now
            if now - last_checkpoint > _CHECKPOINT_SECONDS:
                self._save(f"ck_{int(now - start):04d}.pt", now - start)
                last_checkpoint = now
        if log:
            self._save("last.pt", time.monotonic() - start)
            tell(log, f"end, {self.step} steps: {self._score(dev)}")

    def _agree(self, elapsed: float) -> float:
        """The first process's clock, so that all end and change together."""
        if self.args.processes == 1:
            return elapsed
        clock = torch.tensor([elapsed], dtype=torch.float64)
        torch.distributed.broadcast(clock, 0)
        return float(clock)

    def _advance(self, batch: Batch, rate: float, flat_weight: float) -> Losses:
        """One step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.args.bf16):
            logits, _ = forward(
                self.net, self.cmvn(batch.features), batch.lengths, batch.language, batch.textnorm
            )
        losses = compute_losses(logits.float(), batch, flat_weight)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        if self.args.processes > 1:
            average_gradients(self.net, self.args.processes)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self.seconds_seen += float(batch.lengths.sum()) * _FRAME_SECONDS
        return losses

    def _average_weights(self) -> None:
        if self.step % _AVERAGE_EVERY:
            return
        kept = min(0.98, self.step / (self.step + 100.0))
        for name, value in self.net.state_dict().items():
            self.mean_weights[name].lerp_(value.detach().float(), 1 - kept)

    def _progress(self, elapsed: float, rate: float, means: np.ndarray, making: float) -> str:
        ctc, rich, language, event = means
        seen = self.args.processes * self.seconds_seen
        return (
            f"step {self.step} t {elapsed:.0f} lr {rate:.2e} ctc {ctc:.3f} rich {rich:.3f} "
            f"lid {language:.3f} ev {event:.3f}  {seen / elapsed:.0f}x rt, "
            f"data {100 * making / elapsed:.0f}%, hours {seen / 3600:.1f}"
        )

    def _score(self, dev: list[DevBatch]) -> str:
        """CER and language accuracy in percent, by set:language."""
        self.net.eval()
        scores = score(self.net, self.cmvn, self.vocabulary, dev, ["withitn"])
        self.net.train()
        return json.dumps(
            {
                ":".join(key): (round(counts.cer, 1), round(counts.language_accuracy))
                for key, counts in scores.items()
            }
        )

    def _save(self, name: str, elapsed: float) -> None:
        path = self.args.run / name
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "model": self.net.state_dict(),
                "ema": self.mean_weights,
                "step": self.step,
                "t": elapsed,
                "hours": self.seconds_seen / 3600,
            },
            partial,
        )
        partial.replace(path)


def tell(log: TextIO, line: str) -> None:
    """To the terminal and the log."""
    print(line, flush=True)
    log.write(line + "\n")
    log.flush()


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_process(rank: int, args: argparse.Namespace, port: int) -> None:
    """What each process does; started by main or by torch.multiprocessing."""
    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    if args.processes > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=args.processes
        )
    Stage(args, rank).run()
    if args.processes > 1:
        torch.distributed.destroy_process_group()


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = workfolder.parser(__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="folder of the run, below the work folder")
    add("--sets", nargs="+", required=True, metavar="NAME", help="feature sets")
    add("--minutes", type=float, required=True, help="time of the stage; the schedule follows it")
    add("--max-steps", type=int, default=-1, help="end after so many steps, if that is earlier")
    add("--init", type=Path, metavar="CHECKPOINT", help="begin from these weights, below the work folder")
    add("--processes", type=int, default=1, help="that average their gradients (default 1)")
    add("--threads", type=int, default=2, help="of each process (default 2)")
    add("--bf16", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 autocast")
    add("--seed", type=int, help="of batches and augmentation (default: the clock)")
    add("--lr", type=float, default=2e-3, help="peak learning rate (default 2e-3)")
    add("--warm", type=int, default=400, help="steps of warm-up (default 400)")
    add("--frames", type=int, default=1300, help="stacked frames a batch (default 1300)")
    add("--flat", type=float, default=200, help="seconds of the flat start (default 200)")
    add("--ramp", type=float, default=420, help="seconds until augmentation is full (default 420)")
    add("--greatest-strength", type=float, default=1.0, help="of the augmentation (default 1)")
    add("--languages", nargs="*", default=[], help="only these (default: all)")
    add("--weights", type=json.loads, default={}, metavar="JSON", help='of engines: {"kokoro": 2}')
    add("--width", type=int, default=Architecture.d, help="of the encoder (default 192)")
    add("--feed-forward", type=int, default=Architecture.ff, help="width (default 768)")
    add("--blocks", type=int, default=Architecture.blocks, help="of the encoder (default 7)")
    add("--top-blocks", type=int, default=Architecture.tp, help="of its second stack (default 2)")
    add("--dropout", type=float, default=Architecture.drop, help="rate (default 0.05)")
    args = parser.parse_args(argv)
    args.run = args.root.root / args.run
    args.run.mkdir(parents=True, exist_ok=True)
    if args.init:
        args.init = args.root.root / args.init
    return args


def main(argv: list[str] | None = None) -> int:
    """Run one stage."""
    args = parse(argv)
    # the default of 1024 is too small for the shapes that occur; oneDNN reads it at its first kernel
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")
    if args.processes == 1:
        run_process(0, args, 0)
    else:
        torch.multiprocessing.spawn(run_process, (args, free_port()), nprocs=args.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
