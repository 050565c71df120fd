"""How a run is spread over ranks: copies of all (DDP), or each rank a part of all (Sharded)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lightning_rad.collectives import reduce_in_bfloat16
from lightning_rad.training.layer_sync import keep_activations
from lightning_rad.training.shard_state import Room, spread_optimizer, spread_weights
from lightning_rad.training.sharding_plan import Plan, laid_out

ShardOver = Literal["all", "node"]
Parameters = Literal["auto", "float32", "bfloat16"]


class DDP(DDPStrategy):
    """Each rank holds everything; gradients are averaged in buckets while backward runs.

    Args:
        bucket_cap_mb: Size of a bucket, in MiB.
        gradient_as_bucket_view: Gradients lie in the buckets, which saves their size in memory.
        broadcast_buffers: Whether rank 0's buffers replace the others' before each forward. Running
            statistics differ between ranks without; a queue is equal on all ranks either way.
        static_graph: Tell DDP that every step uses the same parameters in the same order.
        find_unused_parameters: Look for parameters that a step does not use, each step.
        compress_gradients: Send gradients in bfloat16: half the bytes, and sums of 8 bits.
        timeout_minutes: How long a rank waits in a collective; above the limits of `watchdog`.
        process_group_backend: Null is NCCL on GPUs and Gloo elsewhere.
    """

    def __init__(
        self,
        *,
        bucket_cap_mb: int = 25,
        gradient_as_bucket_view: bool = True,
        broadcast_buffers: bool = False,
        static_graph: bool = False,
        find_unused_parameters: bool = False,
        compress_gradients: bool = False,
        timeout_minutes: float = 30,
        process_group_backend: str | None = None,
    ) -> None:
        if bucket_cap_mb < 1:
            raise ValueError(f"bucket_cap_mb must be at least 1, got {bucket_cap_mb}")
        super().__init__(
            process_group_backend=process_group_backend,
            timeout=_timeout(timeout_minutes),
            bucket_cap_mb=bucket_cap_mb,
            gradient_as_bucket_view=gradient_as_bucket_view,
            broadcast_buffers=broadcast_buffers,
            static_graph=static_graph,
            find_unused_parameters=find_unused_parameters,
        )
        self._static_graph, self._compress = static_graph, compress_gradients

    def setup(self, trainer: Trainer) -> None:
        """Wrap the objective, or refuse what would not train right."""
        if self._static_graph and trainer.accumulate_grad_batches > 1:
            raise ValueError(
                "strategy DDP: static_graph reduces in every backward pass, and "
                f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}: set "
                "static_graph to false"
            )
        keep_activations(self)
        super().setup(trainer)

    def _register_ddp_hooks(self) -> None:
        """Lightning registers them on GPUs only, and says nothing elsewhere."""
        if self._compress:
            assert isinstance(self.model, DistributedDataParallel)
            reduce_in_bfloat16(self.model)


class Sharded(ModelParallelStrategy):
    """Each rank holds a part of every parameter, of its gradient and of the optimiser's state.

    FSDP2 of torch: a part of the objective is gathered when it is called and freed behind it; see
    `Plan` for what the parts are. Twins are sharded as their students and move by their shards.
    Queues and all other buffers are whole and equal to what they are under DDP. Checkpoints hold
    the shards and may be resumed on any number of ranks and under any strategy.

    Args:
        shard_over: `all` ranks hold one part each; `node`: the ranks of a node do, and every node
            holds the same, so that only gradients pass between nodes.
        parameters: In which precision parameters are gathered and computed with, but for parts
            that hold batch norms: `float32`, their own; `bfloat16`, half the bytes; `auto` is
            bfloat16 where trainer.precision is bf16-mixed. Gradients are summed, and steps taken,
            in float32 with all of them.
        reshard_after_forward: Free gathered parameters between forward and backward: less memory,
            half as many bytes again.
        timeout_minutes: How long a rank waits in a collective; above the limits of `watchdog`.
        process_group_backend: Null is NCCL on GPUs and Gloo elsewhere.
    """

    def __init__(
        self,
        *,
        shard_over: ShardOver = "all",
        parameters: Parameters = "auto",
        reshard_after_forward: bool = True,
        timeout_minutes: float = 30,
        process_group_backend: str | None = None,
    ) -> None:
        for key, word, words in (
            ("shard_over", shard_over, ShardOver),
            ("parameters", parameters, Parameters),
        ):
            if word not in get_args(words):
                raise ValueError(f"strategy Sharded: {key} '{word}' is not in {get_args(words)}")
        super().__init__(
            process_group_backend=process_group_backend, timeout=_timeout(timeout_minutes)
        )
        self._over: ShardOver = shard_over
        self._parameters: Parameters = parameters
        self._reshard = reshard_after_forward

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Every rank has data of its own."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    def setup_environment(self) -> None:
        """Join the ranks and lay them out."""
        self._setup_distributed()
        copies = self.num_nodes if self._over == "node" else 1
        self._device_mesh = laid_out(self.root_device.type, self.world_size, copies)
        assert self.lightning_module is not None
        self.lightning_module._device_mesh = self._device_mesh

    def setup(self, trainer: Trainer) -> None:
        """Shard the objective, then build the optimiser over the shards."""
        objective = self.lightning_module
        assert objective is not None
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        if not isinstance(objective, FSDPModule):  # trainer.validate after trainer.fit
            keep_activations(self)
            if self._layer_sync:
                self._layer_sync.apply(objective)
            self.precision_plugin.convert_module(objective)
            self._plan().apply(objective)
        self.model = objective
        self.model_to_device()
        _forbid_inference_mode(trainer)
        self.barrier()
        if trainer.state.fn == "fit":
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def _plan(self) -> Plan:
        precision = str(self.precision_plugin.precision)
        low = self._parameters == "bfloat16" or (
            self._parameters == "auto" and precision == "bf16-mixed"
        )
        if low and precision not in ("bf16-mixed", "bf16-true"):
            raise ValueError(
                f"strategy Sharded: parameters bfloat16 with trainer.precision {precision}: set "
                "the precision to bf16-mixed, or parameters to auto"
            )
        dtype = torch.bfloat16 if low else None
        return Plan(self.device_mesh, self.root_device, dtype, self._reshard)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """While batches are accumulated nothing passes between nodes; shards are kept summed.

        Within a node, or where there are no copies, every batch reduces: gradients that wait
        whole would take the memory that sharding saves.
        """
        objective = cast(FSDPModule, self.model)
        objective.set_requires_all_reduce(False)
        try:
            yield
        finally:
            objective.set_requires_all_reduce(True)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """A checkpoint is read shard by shard, into tensors laid out as those that are here."""
        return True

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning hands the optimiser's state to `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Shards of parameters and whole buffers, by name."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take shards, or what is here of whole tensors."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        state = spread_weights(checkpoint["state_dict"], own)
        self.lightning_module.load_state_dict(state, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """By number of the parameter, shards of it."""
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return inner.state_dict()

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take shards, or what is here of whole tensors."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(spread_optimizer(state, optimizer))

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        filepath: str | Path,
        storage_options: Any = None,
    ) -> None:
        """Every rank writes its shards."""
        self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Every rank reads its shards."""
        assert self.lightning_module is not None
        room = Room(self.lightning_module.state_dict(), self.optimizers)
        loaded: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path, place=room)  # type: ignore[call-arg]
        return loaded


def _forbid_inference_mode(trainer: Trainer) -> None:
    """What is gathered in it could not be used by a step that learns."""
    validation = trainer.fit_loop.epoch_loop.val_loop
    for loop in (validation, trainer.validate_loop, trainer.test_loop, trainer.predict_loop):
        loop.inference_mode = False


def _timeout(minutes: float) -> timedelta:
    if not minutes > 0:
        raise ValueError(f"timeout_minutes must be above 0, got {minutes}")
    return timedelta(minutes=minutes)
