"""Finding the replay's processes through Ray: by the names of their actors, which outlive a restart."""

import pyarrow.flight as flight
import ray
from ray.actor import ActorHandle

from buffer.errors import ReplayError
from buffer.flight.endpoint import Locate


def limiter_name(life: str) -> str:
    """The name of the limiter's actor in one life of a replay."""
    return f"{life}-limiter"


def shard_name(life: str, index: int) -> str:
    """The name of a shard's actor."""
    return f"{life}-shard-{index}"


def replica_name(life: str, index: int) -> str:
    """The name of the actor of a shard's replica."""
    return f"{life}-replica-{index}"


def find_actor(name: str) -> ActorHandle:
    """The actor of that name. Raises ReplayError where there is none any more."""
    try:
        return ray.get_actor(name)
    except ValueError as error:
        raise ReplayError(f"{name} is gone for good: the service was stopped") from error


def locate_actor(what: str, name: str) -> Locate:
    """How the endpoint of an actor is found; `what` is what errors call it."""

    def locate(timeout_s: float) -> str:
        try:
            return str(ray.get(find_actor(name).address.remote(), timeout=timeout_s))
        except ray.exceptions.ActorDiedError as error:
            raise ReplayError(
                f"{what} is gone for good, the service was stopped or it could not restart; see its log"
            ) from error
        except ray.exceptions.RayActorError as error:
            raise flight.FlightUnavailableError(f"its actor restarts: {error}") from error
        except ray.exceptions.GetTimeoutError as error:
            raise flight.FlightTimedOutError("its actor does not answer") from error

    return locate
