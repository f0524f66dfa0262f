"""The tasks: for a seed, an instruction and a script of calls that does it.

A family is a function that may add to the content and returns the instruction and the calls. The state after these
calls is the goal; any other calls that lead to this state solve the task too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from envs.tool_use.agenda import CLOSES, DAYS, OPENS, Agenda
from envs.tool_use.content import CHORES, COSTS, LONGEST_MEETING, MONTHS, TITLES, draw_content
from envs.tool_use.desktop import Content
from envs.toolkit.tool_calls import write_call

Script = tuple[str, ...]
Family = Callable[[random.Random, Content], tuple[str, Script]]


@dataclass(frozen=True)
class Task:
    """A task: family, instruction, and the calls of a solution without the final `done`."""

    family: str
    text: str
    script: Script


def draw_task(seed: int, families: Collection[str]) -> tuple[Content, Task]:
    """Return the content and task of a seed."""
    rng = random.Random(seed)
    family = rng.choice(sorted(families))
    content = draw_content(rng)
    text, script = FAMILIES[family](rng, content)
    return content, Task(family, text, script)


# --- one step ---------------------------------------------------------------------------------------------


def _write_file(rng: random.Random, content: Content) -> tuple[str, Script]:
    path, text = f"notes/{rng.choice(MONTHS)}.txt", rng.choice(CHORES)
    return f"Write '{text}' to {path}.", (write_call("write", path=path, text=text),)


def _move_file(rng: random.Random, content: Content) -> tuple[str, Script]:
    path = rng.choice(sorted(content.files))
    to = f"old/{path.rpartition('/')[2]}"
    return f"Move {path} to {to}.", (write_call("move", path=path, to=to),)


def _delete_file(rng: random.Random, content: Content) -> tuple[str, Script]:
    path = rng.choice(sorted(content.files))
    return f"Delete {path}.", (write_call("delete", path=path),)


def _edit_file(rng: random.Random, content: Content) -> tuple[str, Script]:
    old = rng.choice(content.files["todo.txt"].split("\n"))
    new = rng.choice([chore for chore in CHORES if chore not in content.files["todo.txt"]])
    return f"Replace '{old}' by '{new}' in todo.txt.", (write_call("edit", path="todo.txt", old=old, new=new),)


def _book(rng: random.Random, content: Content) -> tuple[str, Script]:
    title, day, hours = _new_title(rng, content), rng.choice(DAYS[3:]), rng.randrange(1, 4)
    start = rng.randrange(OPENS, CLOSES - hours + 1)
    text = f"Book {title} on {day} at {start} for {_hours(hours)}."
    return text, (write_call("book", title=title, day=day, start=start, hours=hours),)


def _cancel(rng: random.Random, content: Content) -> tuple[str, Script]:
    title = rng.choice(content.meetings).title
    return f"Cancel {title}.", (write_call("cancel", title=title),)


def _update_table(rng: random.Random, content: Content) -> tuple[str, Script]:
    name, *_, old = rng.choice(content.rows["staff"])
    salary = old + 100 * rng.randrange(1, 10)
    query = f"UPDATE staff SET salary = {salary} WHERE name = '{name}'"
    return f"Set the salary of {name} to {salary} in the table staff.", (write_call("sql", query=query),)


# --- look something up, then do it ------------------------------------------------------------------------


def _sum_file(rng: random.Random, content: Content) -> tuple[str, Script]:
    path, amounts = _costs(rng, content, rng.choice(MONTHS))
    text = f"Add up the amounts in {path} and write the sum to sum.txt."
    return text, (write_call("read", path=path), *_write_sum(amounts, "sum.txt"))


def _count_rows(rng: random.Random, content: Content) -> tuple[str, Script]:
    team = rng.choice([row[1] for row in content.rows["staff"]])
    count = sum(row[1] == team for row in content.rows["staff"])
    query = f"SELECT count(*) FROM staff WHERE team = '{team}'"
    text = f"Count the people of team {team} in the table staff and write the number to count.txt."
    return text, (write_call("sql", query=query), write_call("write", path="count.txt", text=str(count)))


def _sum_rows(rng: random.Random, content: Content) -> tuple[str, Script]:
    city = rng.choice([row[2] for row in content.rows["sales"]])
    total = sum(row[3] for row in content.rows["sales"] if row[2] == city)
    query = f"SELECT sum(amount) FROM sales WHERE city = '{city}'"
    text = f"Add up the amounts in {city} in the table sales and write the sum to sum.txt."
    return text, (write_call("sql", query=query), write_call("write", path="sum.txt", text=str(total)))


def _free_slot(rng: random.Random, content: Content) -> tuple[str, Script]:
    title, day, hours = (
        _new_title(rng, content),
        rng.choice(content.meetings).day,
        rng.randrange(1, LONGEST_MEETING + 1),
    )
    start = _first_free(content, day, hours)
    text = f"Book {title} for {_hours(hours)} at the first free time on {day}."
    return text, (write_call("agenda", day=day), write_call("book", title=title, day=day, start=start, hours=hours))


def _move_meeting(rng: random.Random, content: Content) -> tuple[str, Script]:
    meeting = rng.choice(content.meetings)
    day = rng.choice([day for day in DAYS if day != meeting.day])
    start = _first_free(content, day, meeting.hours)
    text = f"Move {meeting.title} ({_hours(meeting.hours)}, {meeting.day}) to the first free time on {day}."
    return text, (write_call("agenda", day=day), write_call("shift", title=meeting.title, day=day, start=start))


# --- several things together ------------------------------------------------------------------------------


def _sum_folder(rng: random.Random, content: Content) -> tuple[str, Script]:
    months = rng.sample(MONTHS, 2)
    costs = dict(_costs(rng, content, month) for month in months)
    amounts = [amount for path in sorted(costs) for amount in costs[path]]
    reads = [write_call("read", path=path) for path in sorted(costs)]
    text = "Add up the amounts in all files of the folder costs and write the sum to sum.txt."
    return text, (write_call("list", folder="costs"), *reads, *_write_sum(amounts, "sum.txt"))


def _share_of_sales(rng: random.Random, content: Content) -> tuple[str, Script]:
    item = rng.choice([row[1] for row in content.rows["sales"]])
    total, percent = sum(row[3] for row in content.rows["sales"] if row[1] == item), rng.choice((10, 20, 25, 50))
    share = f"{total * percent / 100:.10g}"
    text = f"Write {percent} percent of the whole amount of {item} in the table sales to share.txt."
    return text, (
        write_call("sql", query=f"SELECT sum(amount) FROM sales WHERE item = '{item}'"),
        write_call("calc", expression=f"{total}*{percent}/100"),
        write_call("write", path="share.txt", text=share),
    )


def _find_letter(rng: random.Random, content: Content) -> tuple[str, Script]:
    letters = sorted(path for path in content.files if path.startswith("letters/"))
    which = rng.randrange(len(letters))
    path = letters[which]
    subject = content.files[path].rpartition(" ")[2].rstrip(".")
    to = f"archive/{subject}.txt"
    reads = [write_call("read", path=letter) for letter in letters[: which + 1]]
    text = f"Find the letter about the {subject} and move it to {to}."
    return text, (write_call("list", folder="letters"), *reads, write_call("move", path=path, to=to))


def _invitation(rng: random.Random, content: Content) -> tuple[str, Script]:
    title, day, hours = (
        _new_title(rng, content),
        rng.choice(content.meetings).day,
        rng.randrange(1, LONGEST_MEETING + 1),
    )
    content.files["invitation.txt"] = f"{title}, {day}, {_hours(hours)}"
    start = _first_free(content, day, hours)
    text = "Book the meeting of invitation.txt at the first free time of its day, then delete the file."
    return text, (
        write_call("read", path="invitation.txt"),
        write_call("agenda", day=day),
        write_call("book", title=title, day=day, start=start, hours=hours),
        write_call("delete", path="invitation.txt"),
    )


def _raises(rng: random.Random, content: Content) -> tuple[str, Script]:
    chosen = rng.sample(content.rows["staff"], 2)
    salaries = {row[0]: row[3] + 100 * rng.randrange(1, 10) for row in chosen}
    content.files["raises.txt"] = "\n".join(f"{name} {salary}" for name, salary in salaries.items())
    text = "Set the salaries in the table staff to those of raises.txt."
    return text, (
        write_call("read", path="raises.txt"),
        *(
            write_call("sql", query=f"UPDATE staff SET salary = {salary} WHERE name = '{name}'")
            for name, salary in salaries.items()
        ),
    )


def _report(rng: random.Random, content: Content) -> tuple[str, Script]:
    city = rng.choice([row[2] for row in content.rows["staff"]])
    name = max((row for row in content.rows["staff"] if row[2] == city), key=lambda row: (row[3], row[0]))[0]
    query = f"SELECT name FROM staff WHERE city = '{city}' ORDER BY salary DESC, name DESC LIMIT 1"
    path = f"reports/{city.lower()}.txt"
    text = (
        f"Write the name of who earns most in {city} (table staff; of equals the last by name) to {path} "
        "and add 'report' to the meetings on fri at the first free time, for 1 hour."
    )
    return text, (
        write_call("sql", query=query),
        write_call("write", path=path, text=name),
        write_call("agenda", day="fri"),
        write_call("book", title="report", day="fri", start=_first_free(content, "fri", 1), hours=1),
    )


FAMILIES: Mapping[str, Family] = {
    "write_file": _write_file,
    "move_file": _move_file,
    "delete_file": _delete_file,
    "edit_file": _edit_file,
    "book": _book,
    "cancel": _cancel,
    "update_table": _update_table,
    "sum_file": _sum_file,
    "count_rows": _count_rows,
    "sum_rows": _sum_rows,
    "free_slot": _free_slot,
    "move_meeting": _move_meeting,
    "sum_folder": _sum_folder,
    "share_of_sales": _share_of_sales,
    "find_letter": _find_letter,
    "invitation": _invitation,
    "raises": _raises,
    "report": _report,
}
LEVELS: Mapping[int, tuple[str, ...]] = {
    1: tuple(FAMILIES)[:7],
    2: tuple(FAMILIES)[:12],
    3: tuple(FAMILIES),
}
"""Level -> the families up to it: one step; a lookup and a step; several steps."""


def _new_title(rng: random.Random, content: Content) -> str:
    taken = {meeting.title for meeting in content.meetings}
    return rng.choice([title for title in TITLES if title not in taken])


def _first_free(content: Content, day: str, hours: int) -> int:
    start = Agenda(content.meetings).first_free(day, hours)
    assert start is not None, f"{day} has no room for {hours} hours"
    return start


def _hours(hours: int) -> str:
    return f"{hours} hour{'' if hours == 1 else 's'}"


def _costs(rng: random.Random, content: Content, month: str) -> tuple[str, list[int]]:
    """Add a file of costs to the content; return its path and amounts."""
    path, amounts = f"costs/{month}.txt", [rng.randrange(5, 100) for _ in range(rng.randrange(2, 5))]
    names = rng.sample(COSTS, len(amounts))
    content.files[path] = "\n".join(f"{name} {amount}" for name, amount in zip(names, amounts, strict=True))
    return path, amounts


def _write_sum(amounts: list[int], path: str) -> Script:
    expression = "+".join(map(str, amounts))
    return write_call("calc", expression=expression), write_call("write", path=path, text=str(sum(amounts)))
