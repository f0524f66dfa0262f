"""A calendar of one week: meetings of whole hours that do not overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from envs.toolkit.tool_calls import ToolError

DAYS = ("mon", "tue", "wed", "thu", "fri")
OPENS, CLOSES = 9, 17
MAX_TITLE = 30


@dataclass(frozen=True, order=True)
class Meeting:
    """A meeting of `hours` hours that begins at `start` o'clock. Titles are unique."""

    day: str
    start: int
    hours: int
    title: str

    @property
    def end(self) -> int:
        return self.start + self.hours

    def __str__(self) -> str:
        return f"{self.start}-{self.end} {self.title}"


class Agenda:
    """The meetings of a week. An operation that cannot be done raises ToolError."""

    def __init__(self, meetings: Iterable[Meeting]) -> None:
        self.meetings = {meeting.title: meeting for meeting in meetings}

    def agenda(self, day: str) -> str:
        """Return the meetings of a day."""
        found = sorted(meeting for meeting in self.meetings.values() if meeting.day == day)
        return f"{day}: {', '.join(map(str, found)) or 'nothing'}."

    def book(self, title: str, day: str, start: int, hours: int) -> str:
        if not title.strip():
            raise ToolError("the title is empty")
        if title in self.meetings:
            raise ToolError(f"there is a {title!a} already")
        meeting = Meeting(day, start, hours, title)
        self._check(meeting)
        self.meetings[title] = meeting
        return f"Booked {day} {meeting}."

    def shift(self, title: str, day: str, start: int) -> str:
        """Move a meeting to another time."""
        meeting = replace(self._meeting(title), day=day, start=start)
        self._check(meeting)
        self.meetings[title] = meeting
        return f"Moved to {day} {meeting}."

    def cancel(self, title: str) -> str:
        self._meeting(title)
        del self.meetings[title]
        return f"Cancelled {title}."

    def first_free(self, day: str, hours: int) -> int | None:
        """Return the earliest start on a day with `hours` free hours, or None."""
        taken = {hour for m in self.meetings.values() if m.day == day for hour in range(m.start, m.end)}
        starts = range(OPENS, CLOSES - hours + 1)
        return next((start for start in starts if taken.isdisjoint(range(start, start + hours))), None)

    def _meeting(self, title: str) -> Meeting:
        if title not in self.meetings:
            raise ToolError(f"no meeting {title!a}")
        return self.meetings[title]

    def _check(self, meeting: Meeting) -> None:
        if meeting.hours < 1 or meeting.start < OPENS or meeting.end > CLOSES:
            raise ToolError(f"meetings are from {OPENS} to {CLOSES}")
        for other in self.meetings.values():
            apart = other.end <= meeting.start or meeting.end <= other.start
            if other.day == meeting.day and other.title != meeting.title and not apart:
                raise ToolError(f"{meeting.day} {other} is then")
