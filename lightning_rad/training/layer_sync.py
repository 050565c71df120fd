"""What `trainer.sync_batchnorm` does to a network."""

from __future__ import annotations

from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from pytorch_lightning.strategies import Strategy
from torch import nn

from lightning_rad.nn.batch_norms import is_fused, synchronise


class SyncBatchNorms(TorchSyncBatchNorm):
    """Lightning's, but that a norm keeps the activation it holds (see `synchronise`)."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Let batch norms see all ranks."""
        return synchronise(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Plain norms again; one with an activation stays, which alone computes the same."""
        return model if is_fused(model) else super().revert(model)


def keep_activations(strategy: Strategy) -> None:
    """Where a strategy is to synchronise batch norms, let it do so in our way."""
    if isinstance(getattr(strategy, "_layer_sync", None), TorchSyncBatchNorm):
        strategy._layer_sync = SyncBatchNorms()  # type: ignore[attr-defined]
