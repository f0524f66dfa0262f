"""Faulty receivers of weights, mixed into a real engine's worker class."""

import actors.engine.extension
import actors.engine.weight_receiver


class Forgetful(actors.engine.extension.EngineExtension):
    """A receiver that omits a step of the product's receiver on request."""

    def forget_heads(self, forget: bool) -> None:
        """Do not rebuild the packed output head."""
        keep = actors.engine.weight_receiver.__dict__.setdefault("_kept", actors.engine.weight_receiver.repack_heads)
        actors.engine.weight_receiver.repack_heads = (lambda model: None) if forget else keep

    def forget_all(self, forget: bool) -> None:
        """Receive nothing at all."""
        receiver = actors.engine.weight_receiver.SharedMemoryReceiver
        keep = receiver.__dict__.get("_kept") or receiver.receive_weights
        receiver._kept = keep  # type: ignore[attr-defined]
        receiver.receive_weights = (lambda self, info: None) if forget else keep  # type: ignore[method-assign]
