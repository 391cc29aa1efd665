"""Networks for the benchmarks that cannot be stored here: well-known architectures with random weights.

    python benchmarks/nets.py FOLDER      makes all of them and says how each behaves

The weights are random (He), the BatchNorm statistics come from pictures run through the network, and the classifier's
features are centred on those pictures. Without that the answers of a deep random network hardly depend on its input,
and an error made in the middle would not be seen at the end. Each network is built in a process of its own and made
once a folder. Speed does not depend on the weights; accuracy is only comparable between artefacts of one network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import kit
from kit import worker
from kit.record import digest

STATISTICS = 32  # pictures behind the BatchNorm statistics


@dataclass(frozen=True)
class Pictures(Sequence):
    """Made-up pictures as feeds, the same for the same numbers: slow waves, rectangles and noise.

    Attributes:
        input: name of the model's input.
        side: pixels, both ways.
        count: how many.
        layout: NCHW gives values of mean 0 and deviation 1 or so, NHWC values of 0 to 255.
        seed: of the first picture; the next one has the next number.
    """

    input: str
    side: int
    count: int
    layout: str = "NCHW"
    seed: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at):
        """The feed at ``at``, float32 [1, ...]; for a slice without gaps the Pictures in it."""
        if isinstance(at, slice):
            start, stop, step = at.indices(self.count)
            assert step == 1
            return replace(self, count=max(0, stop - start), seed=self.seed + start)
        if not 0 <= at < self.count:
            raise IndexError(at)
        plane = picture(self.side, self.seed + at)
        tensor = plane * 255 if self.layout == "NHWC" else ((plane - 0.5) / 0.25).transpose(2, 0, 1)
        return {self.input: np.ascontiguousarray(tensor[None], dtype=np.float32)}

    def digest(self) -> str:
        """Of the numbers that the pictures follow from, and of the first one."""
        return digest([*vars(self).values(), *(self[0].values() if self.count else ())])


def picture(side: int, seed: int) -> np.ndarray:
    """float32 [side, side, 3], 0 to 1."""
    random = np.random.default_rng(seed)
    x = np.linspace(0, 1, side, dtype=np.float32)
    frequency, phase = random.uniform(0, 12, (2, 3)), random.uniform(0, 7, 3)
    waves = np.sin(frequency[0] * x[:, None, None] + frequency[1] * x[None, :, None] + phase)
    plane = random.uniform(0.2, 0.8, 3) + random.uniform(0.05, 0.3) * waves
    for _ in range(random.integers(2, 9)):
        top, left = random.integers(0, side, 2)
        height, width = random.integers(side // 16, side // 2, 2)
        plane[top:top + height, left:left + width] = random.uniform(0, 1, 3)
    plane += random.normal(0, random.uniform(0.005, 0.08), plane.shape)
    return np.clip(plane, 0, 1).astype(np.float32)


def resnet50(folder: Path | str) -> tuple[Path, Path]:
    """ResNet50, 1x3x224x224: (Paddle inference folder, fixed ONNX file)."""
    return _from_paddle("resnet50", Path(folder))


def mobilenet_v3(folder: Path | str) -> tuple[Path, Path]:
    """MobileNetV3-large, 1x3x224x224: (Paddle inference folder, fixed ONNX file)."""
    return _from_paddle("mobilenet_v3_large", Path(folder))


def efficientnet_b0(folder: Path | str) -> tuple[Path, Path]:
    """EfficientNetB0, 1x512x512x3 of 0 to 255, logits: (SavedModel folder, fixed ONNX file)."""
    home = Path(folder) / "efficientnet_b0"
    saved, onnx = home / "saved", home / "efficientnet_b0.onnx"
    _made(saved, _save_keras)
    _made(onnx, _convert_keras, saved)
    return saved, _fixed(onnx, Pictures("x", 512, 4, "NHWC"), home)


def unet(folder: Path | str) -> Path:
    """The UNet of Stable Diffusion 1.5 (860 M parameters), as PyTorch's newer exporter writes it; weights beside it.

    Needs ``diffusers``; ``kit.worker.use("torch", python=...)`` takes another environment that has it.
    """
    path = Path(folder) / "unet"
    _made(path, _save_unet)
    return path / "unet.onnx"


def pictures(onnx: Path | str, count: int, seed: int = 1000) -> Pictures:
    """Feeds for one of these networks; the seed's own pictures are not those behind the statistics."""
    spec = kit.Model.open(onnx).inputs[0]
    return Pictures(spec.name, int(spec.shape[2]), count, "NCHW" if spec.shape[1] == 3 else "NHWC", seed)


NETS: dict[str, Callable[[Path | str], tuple[Path, Path]]] = {
    "resnet50": resnet50, "mobilenet_v3": mobilenet_v3, "efficientnet_b0": efficientnet_b0}


def _from_paddle(name: str, folder: Path) -> tuple[Path, Path]:
    home = folder / name
    saved = home / name
    _made(saved, _save_paddle, name)
    samples = Pictures("x", 224, 4)
    exported = kit.export(saved, runs=home / "runs")
    return saved, _fixed(exported, samples, home)


def _fixed(model: object, samples: Pictures, home: Path) -> Path:
    return kit.fix(model, kit.FixOptions(opset=17), samples=samples, runs=home / "runs").model.path


def _made(path: Path, build: Callable[..., None], *args: object) -> None:
    """Let ``build(*args, path)`` make ``path`` in a worker, unless it is there; a broken-off one is made again."""
    if path.exists():
        return
    half = path.with_name(f"{path.stem}-half{path.suffix}")
    half.parent.mkdir(parents=True, exist_ok=True)
    framework = {_save_paddle: "paddle", _save_unet: "torch"}.get(build, "tensorflow")
    worker.run(build, *args, half, framework=framework)
    half.rename(path)


# ---- what runs in the worker --------------------------------------------------------------------------------------

def _save_paddle(name: str, folder: Path) -> None:
    import paddle

    paddle.seed(7)
    net = getattr(paddle.vision.models, name)(pretrained=False)  # convolutions start with He weights
    norms = [layer for layer in net.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    last = [layer for layer in net.sublayers() if isinstance(layer, paddle.nn.Linear)][-1]
    seen: list[np.ndarray] = []
    hook = last.register_forward_pre_hook(lambda layer, args: seen.append(args[0].numpy()))
    samples = Pictures("x", 224, STATISTICS)
    batch = 16
    net.train()
    for layer in net.sublayers():
        if isinstance(layer, paddle.nn.Dropout):
            layer.eval()
    with paddle.no_grad():
        for at in range(0, STATISTICS, batch):
            for norm in norms:
                norm._momentum = at / (at + batch)  # running mean of all batches
            net(paddle.to_tensor(np.concatenate([samples[i]["x"] for i in range(at, at + batch)])))
        net.eval()
        seen.clear()
        for i in range(STATISTICS):
            net(paddle.to_tensor(samples[i]["x"]))
        weight, bias = _centred(np.concatenate(seen).reshape(STATISTICS, -1), last.weight.numpy())
        last.weight.set_value(weight)
        last.bias.set_value(bias)
    hook.remove()
    paddle.jit.save(net, str(folder / "inference"),
                    input_spec=[paddle.static.InputSpec([1, 3, 224, 224], "float32", "x")])


def _save_keras(folder: Path) -> None:
    import keras

    keras.utils.set_random_seed(7)
    net = keras.applications.EfficientNetB0(weights=None, input_shape=(512, 512, 3), classifier_activation=None)
    norms = [layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization)]
    samples = Pictures("x", 512, STATISTICS, "NHWC")
    batch = 4
    for at in range(0, STATISTICS, batch):
        for norm in norms:
            norm.momentum = at / (at + batch)
        net(np.concatenate([samples[i]["x"] for i in range(at, at + batch)]), training=True)
    head = keras.Model(net.input, net.layers[-1].input)
    features = np.concatenate([np.asarray(head(samples[i]["x"])) for i in range(STATISTICS)])
    net.layers[-1].set_weights(_centred(features, net.layers[-1].get_weights()[0]))
    net.export(str(folder), input_signature=[keras.InputSpec(shape=(1, 512, 512, 3), dtype="float32", name="x")],
               verbose=False)


def _convert_keras(saved: Path, path: Path) -> None:
    import tensorflow as tf
    import tf2onnx

    graph, inputs, outputs, *_ = tf2onnx.tf_loader.from_saved_model(
        str(saved), None, None, signatures=["serving_default"], return_initialized_tables=True,
        return_tensors_to_rename=True)
    with tf.Graph().as_default() as loaded:
        tf.import_graph_def(graph, name="")
        made = tf2onnx.tfonnx.process_tf_graph(loaded, opset=17, input_names=inputs, output_names=outputs)
    proto = tf2onnx.optimizer.optimize_graph(made).make_model("efficientnet_b0")
    plain = {value.name: value.name.partition(":")[0] for value in (*proto.graph.input, *proto.graph.output)}
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = plain[value.name]
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [plain.get(name, name) for name in names]
    path.write_bytes(proto.SerializeToString())


def _save_unet(folder: Path) -> None:
    import torch
    from diffusers import UNet2DConditionModel

    class Step(torch.nn.Module):
        """A tensor out, not a tuple."""

        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, sample, timestep, encoder_hidden_states):
            return self.net(sample, timestep, encoder_hidden_states, return_dict=False)[0]

    torch.manual_seed(7)
    blocks = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    net = UNet2DConditionModel(
        sample_size=64, in_channels=4, out_channels=4, cross_attention_dim=768, attention_head_dim=8,
        layers_per_block=2, block_out_channels=(320, 640, 1280, 1280),
        down_block_types=(*[blocks[0]] * 3, "DownBlock2D"), up_block_types=("UpBlock2D", *[blocks[1]] * 3)).eval()
    inputs = torch.randn(1, 4, 64, 64), torch.tensor([500]), torch.randn(1, 77, 768)
    folder.mkdir()
    with torch.no_grad():
        torch.onnx.export(Step(), inputs, str(folder / "unet.onnx"), dynamo=True, external_data=True,
                          input_names=["sample", "timestep", "encoder_hidden_states"], output_names=["noise"])


def _centred(features: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias that standardise the features [pictures, n] first, as a trained classifier comes to do."""
    spread = features.std(axis=0) + 0.1 * features.std()
    weight = weight / spread[:, None] / np.sqrt(len(weight)) * 10
    return weight.astype(np.float32), (-features.mean(axis=0) @ weight).astype(np.float32)


def main() -> None:
    """Make them all; print how outputs differ between pictures."""
    for name, make in NETS.items():
        source, onnx = make(Path(sys.argv[1]))
        with kit.open_runner(onnx) as run:
            answers = np.stack([next(iter(run(feed).values())).ravel() for feed in pictures(onnx, 8)])
        likeness = np.corrcoef(answers)[np.triu_indices(8, 1)]
        print(f"{name}: {source} -> {onnx}; outputs of deviation {answers.std():.3g}, finite: "
              f"{np.isfinite(answers).all()}; correlation between pictures {likeness.mean():.2f} on average, "
              f"at most {likeness.max():.2f}", flush=True)


if __name__ == "__main__":
    import nets  # once more, under the name that a worker can import

    nets.main()
