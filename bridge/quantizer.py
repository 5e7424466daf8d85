"""The packed form as transformers knows it: one of its quantisation methods.

Imported while transformers itself is being imported, so whatever is heavy is imported later.
"""

from pathlib import Path
from typing import Any

import torch
from transformers.quantizers import auto
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from mech.errors import BadInput

METHOD = "ctr_packed"
VERSION = 1


class PackedConfig(QuantizationConfigMixin):
    """`quantization_config` of config.json: what stands at each linear, and a digest of it all.

    `manifest` says that a manifest.json lies beside the weights, and is to be checked. `dtype` is
    the model's when it was saved. Raises BadInput where it was written by a later version, or is
    damaged.
    """

    def __init__(
        self,
        version: int = VERSION,
        linears: dict[str, Any] | None = None,
        sha256: str = "",
        dtype: str = "float32",
        manifest: bool = False,
        **unknown: Any,
    ):
        unknown.pop("quant_method", None)
        if version != VERSION or unknown:
            raise BadInput(
                f"a packed model of version {version}{' with ' if unknown else ''}"
                f"{', '.join(sorted(unknown))}: this package reads version {VERSION}"
            )
        listed = isinstance(linears, dict) and all(isinstance(s, dict) for s in linears.values())
        if not linears or not listed or not isinstance(sha256, str):
            raise BadInput("config.json lists no packed linears: save the model again")
        self.quant_method = METHOD  # type: ignore[assignment]  # their enumeration is not closed
        self.version, self.linears, self.sha256 = version, linears, sha256
        self.dtype, self.manifest = dtype, manifest


class PackedQuantizer(HfQuantizer):
    """Empty slots before the weights are read, operators after; back again when they are saved."""

    requires_calibration = True
    quantization_config: PackedConfig
    _asked: torch.dtype | None = None

    def __init__(
        self, quantization_config: QuantizationConfigMixin, manifest: bool = False, **more: Any
    ):
        """`manifest`: what is saved gets a manifest.json, which whoever loads it has to check."""
        super().__init__(quantization_config, **more)
        self._manifest = manifest

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        self._asked = dtype
        return dtype

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: list[str] | None = None, **_: Any
    ) -> None:
        from bridge.manifest import verify
        from bridge.packed import prepare

        if not checkpoint_files:
            raise BadInput("a packed model is loaded from its folder, not from tensors in memory")
        if self.quantization_config.manifest:
            verify(Path(checkpoint_files[0]).parent)
        prepare(model, self.quantization_config.linears)

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        from bridge.packed import restore
        from bridge.sites import operators

        if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
            raise BadInput("a packed model is not spread over devices: load it on one")
        restore(model, self.quantization_config.linears, self.quantization_config.sha256)
        if (
            self._asked is not None
            and str(self._asked) != f"torch.{self.quantization_config.dtype}"
        ):
            for operator in operators(model).values():
                operator.to(self._asked)
        return model

    def get_state_dict_and_metadata(self, model: Any) -> Any:
        from bridge.packed import state

        model.config.quantization_config = configuration(model, manifest=self._manifest)
        return state(model), {}

    def update_weight_conversions(self, weight_conversions: Any, model: Any) -> Any:
        return []  # tensors are stored under the model's own names

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        from bridge.fold import folded
        from bridge.opened import close
        from bridge.sites import place

        place(model, folded(model))
        # As its family keeps them, or `save_pretrained` writes names that no loader knows.
        close(model)
        return model.to(dtype)

    def is_serializable(self) -> Any:
        return True

    @property
    def is_trainable(self) -> Any:
        return False


def configuration(model: Any, *, manifest: bool = False) -> PackedConfig:
    """What config.json has to say of a model as it is now. Raises BadInput without operators."""
    from bridge.packed import digest, packed, specs

    return PackedConfig(
        linears=specs(model),
        sha256=digest(packed(model)),
        dtype=str(model.dtype).removeprefix("torch."),
        manifest=manifest,
    )


if METHOD not in auto.AUTO_QUANTIZER_MAPPING:  # a second registration is an error there
    auto.register_quantization_config(METHOD)(PackedConfig)
    auto.register_quantizer(METHOD)(PackedQuantizer)
