"""Where averages are put while somebody predicts with them, and how the originals come back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ema_cli.parameters import numpy_store
from ema_cli.parameters.leaves import Leaf
from ema_cli.parameters.tensors import is_tensor
from ema_cli.parameters.tree import is_module, named_leaves


class Swap:
    """A module or tree whose values are overwritten for a while.

    Values go back by name into the module as it then is. A state dict's tensors are aliases of a module's:
    they go back into whatever tensors stand in that module then.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._slots: Mapping[str, Any] = {}
        self._backups: dict[str, tuple[Leaf, Any]] = {}

    def writable(self, leaves: dict[str, Leaf], *, must_reach: bool = False) -> dict[str, Leaf]:
        """The leaves, checked. Raises DataError where one can't be written, or it would be in vain."""
        for leaf in leaves.values():
            if is_tensor(leaf.value):
                from ema_cli.parameters.torch_store import check_writable

                check_writable(leaf)
            else:
                numpy_store.check_writable(leaf)
        if (
            must_reach
            and not is_module(self.model)
            and any(is_tensor(leaf.value) for leaf in leaves.values())
        ):
            from ema_cli.parameters.modules import check_reached, slots_of

            self._slots = slots_of(leaves)
            check_reached(leaves, self._slots, self.model)
        return leaves

    def back_up(self, leaves: Mapping[str, Leaf]) -> None:
        """Remember all values."""
        for name, leaf in leaves.items():
            if is_tensor(leaf.value):
                from ema_cli.parameters.torch_store import backed_up

                self._backups[name] = (leaf, backed_up(leaf))
            else:
                self._backups[name] = (leaf, numpy_store.backed_up(leaf))

    def put_back(self) -> None:
        """Put the values back; one that can't be does not keep the others from it."""
        now = named_leaves(self.model) if is_module(self.model) else {}
        failed: Exception | None = None
        for name, (leaf, backup) in self._backups.items():
            try:
                self._put_back(now.get(name, leaf), backup, self._slots.get(name, ()))
            except Exception as error:  # raised below, once all others are back
                failed = failed or error
        self._backups.clear()
        if failed is not None:
            raise failed

    def _put_back(self, leaf: Leaf, backup: Any, slots: Any) -> None:
        if not is_tensor(leaf.value):
            numpy_store.put_back(leaf, backup)
            return
        from ema_cli.parameters.torch_store import put_back

        put_back(leaf.value, backup)
        for slot in slots:
            if slot.tensor is not None and slot.tensor is not leaf.value:
                put_back(slot.tensor, backup)
