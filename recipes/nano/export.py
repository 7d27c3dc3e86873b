"""Write a model folder as SenseVoiceSmall's: ONNX in fp32 and int8, CMVN, vocabulary, configuration.

Several checkpoints are averaged. The folder is written beside its place, loaded in ONNX Runtime, and only
then put there.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from recipes.nano import workfolder
from recipes.nano.features import STACKED
from recipes.nano.model import QUERIES, Architecture, build
from recipes.nano.pick_weights import mean_weights
from recipes.nano.workfolder import WorkFolder

MAX_SPAN_SECONDS: Final = 8
"""Longer stretches of speech were never heard in training."""


def load_weights(root: Path, checkpoint: str) -> dict[str, torch.Tensor]:
    """Weights of PATH, or of PATH:ema their running mean."""
    path = checkpoint.removesuffix(":ema")
    return torch.load(root / path)["model" if path == checkpoint else "ema"]


def mean_at(run: Path, seconds: float) -> str:
    """The running mean of the checkpoint saved nearest to a time of the stage (of the last, if none was)."""
    timed = {int(path.stem.removeprefix("ck_")): path for path in run.glob("ck_*.pt")}
    nearest = min(timed, key=lambda saved: abs(saved - seconds), default=None)
    return f"{run / 'last.pt' if nearest is None else timed[nearest]}:ema"


def export_onnx(net: torch.nn.Module, path: Path) -> None:
    """The fp32 graph, by funasr's own export."""
    exported = net.export(max_seq_len=512, device="cpu", type="onnx")
    torch.onnx.export(
        exported,
        exported.export_dummy_inputs(),
        str(path),
        do_constant_folding=True,
        opset_version=14,
        input_names=exported.export_input_names(),
        output_names=exported.export_output_names(),
        dynamic_axes=exported.export_dynamic_axes(),
        dynamo=False,
    )


def quantise(fp32: Path, int8: Path, *, keep_ctc: bool) -> None:
    """Dynamic int8 as funasr quantises SenseVoiceSmall: MatMul only, per channel, QUInt8.

    Args:
        fp32: graph to read.
        int8: graph to write.
        keep_ctc: leave the output layer in fp32.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kept = ["output", "bias_encoder", "bias_decoder"] + (["ctc"] if keep_ctc else [])
    names = [node.name for node in onnx.load(str(fp32)).graph.node]
    quantize_dynamic(
        str(fp32),
        str(int8),
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=False,
        weight_type=QuantType.QUInt8,
        nodes_to_exclude=[name for name in names if any(part in name for part in kept)],
    )


def kaldi_cmvn(mean: NDArray[np.float32], std: NDArray[np.float32]) -> str:
    """CMVN as Kaldi's text form, which funasr reads from am.mvn. Both arrays have shape (560,)."""

    def row(values: NDArray[np.float32]) -> str:
        return " ".join(f"{value:.7g}" for value in values)

    return (
        f"<Nnet> \n<Splice> {STACKED} {STACKED} \n[ 0 ]\n"
        f"<AddShift> {STACKED} {STACKED} \n<LearnRateCoef> 0 [ {row(-mean)} ] \n"
        f"<Rescale> {STACKED} {STACKED} \n<LearnRateCoef> 0 [ {row(1 / std)} ] \n</Nnet> \n"
    )


def configuration(architecture: Architecture, pieces: int) -> dict[str, Any]:
    """What config.yaml holds."""
    return {
        "encoder": "SenseVoiceEncoderSmall",
        "encoder_conf": architecture.encoder_conf(),
        "model": "SenseVoiceSmall",
        "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
        "tokenizer": "SentencepiecesTokenizer",
        "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": 16000,
            "window": "hamming",
            "n_mels": 80,
            "frame_length": 25,
            "frame_shift": 10,
            "lfr_m": 7,
            "lfr_n": 6,
            "cmvn_file": None,
        },
        "input_size": STACKED,
        "vocab_size": pieces,
        "max_span_seconds": MAX_SPAN_SECONDS,
        "ctc_conf": {"dropout_rate": 0.0, "ctc_type": "builtin", "reduce": True, "ignore_nan_grad": True},
    }


def check_loads(path: Path, pieces: int) -> None:
    """Run a graph on two batches of random features.

    Raises:
        ValueError: the answer has another shape than SenseVoiceSmall's, or is not finite.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for batch, frames in ((1, 17), (3, 50)):
        logits, lengths = session.run(
            None,
            {
                "speech": rng.standard_normal((batch, frames, STACKED)).astype(np.float32),
                "speech_lengths": np.full(batch, frames, np.int32),
                "language": np.zeros(batch, np.int32),
                "textnorm": np.full(batch, 14, np.int32),
            },
        )
        wanted = (batch, frames + QUERIES, pieces)
        if logits.shape != wanted or not np.isfinite(logits).all() or (lengths != wanted[1]).any():
            raise ValueError(f"{path}: logits {logits.shape}, lengths {lengths}; should be {wanted}, finite")


def write_folder(
    folder: WorkFolder, partial: Path, run: Path, weights: dict[str, torch.Tensor], *, keep_ctc: bool
) -> int:
    """Write and check all files; returns the number of parameters."""
    import sentencepiece
    import yaml

    pieces = sentencepiece.SentencePieceProcessor(str(folder.sentencepiece_model)).get_piece_size()
    architecture = Architecture.load(run / "conf.json")
    net = build(pieces, architecture)
    net.load_state_dict(weights)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    fp32, int8 = partial / "model.onnx", partial / "model_quant.onnx"
    export_onnx(net.eval(), fp32)
    quantise(fp32, int8, keep_ctc=keep_ctc)
    cmvn = np.load(folder.cmvn)
    (partial / "am.mvn").write_text(kaldi_cmvn(cmvn["mean"], cmvn["std"]), encoding="utf-8")
    shutil.copyfile(folder.sentencepiece_model, partial / "chn_jpn_yue_eng_ko_spectok.bpe.model")
    shutil.copyfile(folder.tokens, partial / "tokens.json")
    config = yaml.safe_dump(configuration(architecture, pieces), sort_keys=False)
    (partial / "config.yaml").write_text(config, encoding="utf-8")
    for path in (fp32, int8):
        check_loads(path, pieces)
    return parameters


def main(argv: list[str] | None = None) -> int:
    """Export and quantise."""
    parser = workfolder.parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="whose conf.json counts")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="model folder to write")
    parser.add_argument("--keep-ctc", action="store_true", help="leave the output layer in fp32")
    parser.add_argument(
        "--mean-at", type=float, metavar="SECONDS", help="the running mean at this time of the run"
    )
    parser.add_argument(
        "checkpoints", nargs="*", metavar="CHECKPOINT", help="PATH, or PATH:ema for the running mean"
    )
    args = parser.parse_args(argv)
    root = args.root.root
    if bool(args.checkpoints) == (args.mean_at is not None):
        parser.error("give either checkpoints or --mean-at")
    checkpoints = args.checkpoints or [mean_at(root / args.run, args.mean_at)]
    target = root / args.to
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        weights = mean_weights([load_weights(root, checkpoint) for checkpoint in checkpoints])
        parameters = write_folder(args.root, partial, root / args.run, weights, keep_ctc=args.keep_ctc)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    print(f"{target}: {parameters / 1e6:.2f} M parameters, loads in ONNX Runtime")
    for path in sorted(target.iterdir()):
        print(f"  {path.stat().st_size:>10}  {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
