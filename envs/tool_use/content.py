"""The content of an episode: files, tables and meetings, drawn from a seed before its task."""

from __future__ import annotations

import random

from envs.tool_use.agenda import CLOSES, DAYS, OPENS, Agenda, Meeting
from envs.tool_use.desktop import Content

NAMES = ("Ann", "Ben", "Carl", "Dora", "Emma", "Finn", "Gina", "Hugo", "Ida", "Jack", "Kim", "Leo")
CITIES = ("Bonn", "Kiel", "Oslo", "Rome")
TEAMS = ("design", "sales", "support")
GOODS = ("chair", "clock", "lamp", "mug", "vase")
COSTS = ("food", "fuel", "gas", "paper", "rent", "taxi")
MONTHS = ("january", "february", "march", "april", "may", "june")
SUBJECTS = ("budget", "contract", "holiday", "insurance", "invoice", "party")
TITLES = ("demo", "hiring", "lunch", "planning", "review", "standup", "training")
CHORES = ("buy milk", "call Ann", "pay rent", "print tickets", "water plants")
STAFF, SALES, LETTERS, MEETINGS = 6, 8, 3, 4
LONGEST_MEETING = 2


def draw_content(rng: random.Random) -> Content:
    """Draw files, tables and meetings, independently of the task."""
    content = Content()
    content.files["todo.txt"] = "\n".join(rng.sample(CHORES, 2))
    for name, subject in zip(rng.sample(NAMES, LETTERS), rng.sample(SUBJECTS, LETTERS), strict=True):
        content.files[f"letters/{name.lower()}.txt"] = f"Dear {name}, this is about the {subject}."
    content.rows["staff"] = [
        (name, rng.choice(TEAMS), rng.choice(CITIES), 100 * rng.randrange(20, 60)) for name in rng.sample(NAMES, STAFF)
    ]
    content.rows["sales"] = [
        (i + 1, rng.choice(GOODS), rng.choice(CITIES), rng.randrange(10, 100)) for i in range(SALES)
    ]
    content.meetings = _draw_meetings(rng)
    return content


def _draw_meetings(rng: random.Random) -> list[Meeting]:
    """Draw meetings on the first three days, each of which keeps room for one more."""
    meetings: list[Meeting] = []
    for title in rng.sample(TITLES, MEETINGS):
        day, hours = rng.choice(DAYS[:3]), rng.randrange(1, LONGEST_MEETING + 1)
        meeting = Meeting(day, rng.randrange(OPENS, CLOSES - hours + 1), hours, title)
        apart = all(m.day != day or m.end <= meeting.start or meeting.end <= m.start for m in meetings)
        if apart and Agenda([*meetings, meeting]).first_free(day, LONGEST_MEETING) is not None:
            meetings.append(meeting)
    return meetings
