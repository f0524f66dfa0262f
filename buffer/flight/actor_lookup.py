"""Names of the replay's Ray actors, and how their endpoints are found: a name outlives a restart of its actor."""

from typing import Literal

import pyarrow.flight as flight
import ray
from ray.actor import ActorHandle

from buffer.errors import ReplayError
from buffer.flight.endpoint import Locate


def actor_name(service: str, role: Literal["limiter", "shard", "replica"], index: int = 0) -> str:
    """Return the name of an actor; `service` is the unique name of one running replay service."""
    return f"{service}-{role}-{index}"


def find_actor(name: str) -> ActorHandle:
    """Return the actor with that name. Raises ReplayError if there is none any more."""
    try:
        return ray.get_actor(name)
    except ValueError as error:
        raise ReplayError(f"{name} is gone for good: the service was stopped") from error


def locate_actor(what: str, name: str) -> Locate:
    """Return a function that asks an actor for its endpoint; errors call the actor `what`."""

    def locate(timeout_s: float) -> str:
        try:
            return str(ray.get(find_actor(name).address.remote(), timeout=timeout_s))
        except ray.exceptions.ActorDiedError as error:
            raise ReplayError(
                f"{what} is gone for good: the service was stopped or the actor could not restart; see its log"
            ) from error
        except ray.exceptions.RayActorError as error:
            raise flight.FlightUnavailableError(f"its actor restarts: {error}") from error
        except ray.exceptions.GetTimeoutError as error:
            raise flight.FlightTimedOutError("its actor does not answer") from error

    return locate
