"""What ONNX Runtime's own quantization to int8 (QDQ) makes of the exported graph of `demo-plus`: accuracy on the test
images, answers that stay, and sizes.

    python benchmarks/onnx_int8.py --output benchmarks/results/onnx_int8.json

Convolutions and the readout become int8, with ranges from training images; division and neurons stay in float.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from torch import Tensor

from eisnn.deploy import write_onnx
from eisnn.interop import load_trained
from eisnn.provenance import provenance, write_result

QUANTIZED = ["Conv", "MatMul", "Gemm"]


class Batches(CalibrationDataReader):
    def __init__(self, images: Tensor) -> None:
        self.parts: Iterator[Tensor] = iter(images.split(50))

    def get_next(self) -> dict[str, Any] | None:
        part = next(self.parts, None)
        return None if part is None else {"images": part.numpy()}


def classes_of(file: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    parts = (session.run(None, {"images": part.numpy()})[0].argmax(1) for part in images.split(100))
    return torch.cat([torch.from_numpy(part) for part in parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=int, default=200, help="training images")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    trained = load_trained("demo-plus")
    shown = trained.training_images(args.calibration)
    images, labels = trained.test_pixels().float() / 255, trained.dataset.test.labels
    with TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in ("float", "int8")}
        write_onnx(trained.model, shown[:1], files["float"])
        quantize_static(
            str(files["float"]),
            str(files["int8"]),
            Batches(shown),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            per_channel=True,
        )
        answers = {name: classes_of(file, images) for name, file in files.items()}
        found: dict[str, Any] = {
            name: {
                "accuracy": 100 * float((answers[name] == labels).float().mean()),
                "same answers, %": 100 * float((answers[name] == answers["float"]).float().mean()),
                "bytes": file.stat().st_size,
            }
            for name, file in files.items()
        }
    print(found)
    if args.output:
        peers = {"onnxruntime": onnxruntime.__version__}
        write_result(args.output, {**provenance(), "peers": peers, "images": len(images), "networks": found})


if __name__ == "__main__":
    main()
