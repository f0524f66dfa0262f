"""Faulty receivers of weights, mixed into a real engine's worker class."""

import actors.engine.extension
import actors.engine.weight_receiver
from actors.engine.staged_model import StagedModel, can_stage

_install, _tie = StagedModel.install, StagedModel._tie


class Forgetful(actors.engine.extension.EngineExtension):
    """A receiver that omits a step of the product's receiver on request."""

    installed = False

    def forget_heads(self, forget: bool) -> None:
        """Do not rebuild the packed output head."""
        StagedModel._tie = (lambda staged: None) if forget else _tie  # type: ignore[method-assign]

    def forget_all(self, forget: bool) -> None:
        """Install nothing at all."""

        def nothing(staged: StagedModel) -> None:
            staged._thread = None

        StagedModel.install = nothing if forget else _install  # type: ignore[method-assign]

    def load_in_pause(self, in_pause: bool) -> None:
        """Load weights as for a model that cannot take them while it generates."""
        receiver = self.weight_transfer_engine
        actors.engine.weight_receiver.can_stage = (lambda model: False) if in_pause else can_stage
        if in_pause:
            self.kept, receiver._staged = receiver._staged, None
        elif receiver._staged is None:
            receiver._staged = getattr(self, "kept", None)

    def staged(self) -> bool:
        """Return whether the receiver loads weights while the engine generates."""
        return self.weight_transfer_engine._staged is not None
