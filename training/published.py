"""Published Lifespan checkpoints: their tensors' names, brought to ours."""

from collections.abc import Mapping

from torch import Tensor

from model.networks.lifespan import LifespanGenerator, LifespanShape

BLUR_BUFFERS = ("blur.weight", "blur.weight_flip")


def _names() -> dict[str, str]:
    """Published prefix -> ours; `.weight` and `.bias` follow on our side."""
    names: dict[str, str] = {}
    for ours, theirs in enumerate((1, 5, 9)):
        names[f"id_encoder.encoder.{theirs}.conv"] = f"identity_encoder.convolutions.{ours}"
    for block in range(4):
        for ours, theirs in (("first", 1), ("second", 5)):
            names[f"id_encoder.encoder.{12 + block}.conv_block.{theirs}.conv"] = (
                f"identity_encoder.residuals.{block}.{ours}"
            )
    for ours, theirs in enumerate((1, 4, 7, 10, 13)):
        names[f"age_encoder.encoder.{theirs}.conv"] = f"age_encoder.convolutions.{ours}"
    names["age_encoder.encoder.15.conv"] = "age_encoder.head"
    for layer in range(8):
        names[f"decoder.mlp.model.{1 + 3 * layer}.linear"] = f"mapping.layers.{layer}"
    blocks = [f"StyledConvBlock_{i}" for i in range(4)] + [
        f"StyledConvBlock_up{i}" for i in range(2)
    ]
    for index, block in enumerate(blocks):
        for ours, theirs in (("first", "conv0"), ("second", "conv1")):
            prefix = f"decoder.blocks.{index}.{ours}"
            names[f"decoder.{block}.{theirs}"] = prefix
            names[f"decoder.{block}.{theirs}.mlp_class_std.0.linear"] = f"{prefix}.affine"
    names["decoder.conv_img.0.conv"] = "decoder.to_rgb"
    return names


def translated(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published generator's state under our names, blur buffers left out.

    Raises ValueError that lists tensors which are missing or belong to nothing.
    """
    names = _names()
    result: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        if name.endswith(BLUR_BUFFERS):
            continue
        prefix, _, kind = name.removeprefix("module.").rpartition(".")
        kind = "weight" if kind == "weight_orig" else kind
        if prefix not in names or kind not in ("weight", "bias"):
            unknown.append(name)
            continue
        result[f"{names[prefix]}.{kind}"] = tensor
    missing = [theirs for theirs, ours in names.items() if f"{ours}.weight" not in result]
    if unknown or missing:
        raise ValueError(
            f"not a published Lifespan generator: unknown {unknown[:5]}, missing {missing[:5]}"
        )
    return result


def published_generator(state: Mapping[str, Tensor]) -> LifespanGenerator:
    """The generator that a published state describes, at whatever width and code size it has."""
    state = translated(state)
    width = state["identity_encoder.convolutions.0.weight"].shape[0]
    latent, code = state["mapping.layers.0.weight"].shape
    generator = LifespanGenerator(LifespanShape(width, code, latent))
    generator.load_state_dict(state)
    return generator
