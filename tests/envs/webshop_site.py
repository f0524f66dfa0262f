"""A small site with the pages of princeton-nlp/WebShop: addresses, sessions, forms and elements, over the catalogue of
this project.

Like the original: the routes; a session named ..._fixed_N has goal N; a search is posted to the page of the session and
answered by a redirect to an address that contains the list of its words; the chosen options are a dictionary in the
address; headings are closed by a tag of another level; "Next >" is on every page of results; an error of the server's
code is a 500.
"""

from __future__ import annotations

import ast
import asyncio
import html
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from aiohttp import web

from envs.webshop import Goal, Item, draw_goal, load_catalogue, score

GOALS = 40
PER_PAGE = 10
HANG_S = 5.0


class Site:
    """The pages of the site.

    visits: the requested addresses.
    broken: a fault to answer with instead of a page: "hang", "garbage", "gateway" or "drip".
    """

    def __init__(self) -> None:
        self.catalogue = load_catalogue(200)
        self.codes = {item.code.upper(): item for item in self.catalogue.items}
        self.sessions: dict[str, Goal] = {}
        self.visits: list[str] = []
        self.broken = ""
        self.app = web.Application(middlewares=[self.watch])
        for path, handler in (
            ("/{session}", self.start),
            ("/search_results/{session}/{keywords}/{page}", self.results),
            ("/item_page/{session}/{code}/{keywords}/{page}/{options:[^/]+}", self.item),
            ("/item_sub_page/{session}/{code}/{keywords}/{page}/{tab}/{options:[^/]+}", self.tab),
            ("/done/{session}/{code}/{options:[^/]+}", self.done),
        ):
            self.app.router.add_route("GET", path, handler)
            self.app.router.add_route("POST", path, handler)

    def goal(self, number: int) -> Goal:
        if number >= GOALS:
            raise web.HTTPInternalServerError(text="IndexError: list index out of range")
        return draw_goal(self.catalogue, random.Random(f"site {number}"))

    @web.middleware
    async def watch(self, request: web.Request, handler) -> web.StreamResponse:
        self.visits.append(request.path)
        if self.broken == "hang":
            await asyncio.sleep(HANG_S)
        if self.broken == "garbage":
            return web.Response(text="<h1>It works!</h1>", content_type="text/html")
        if self.broken == "gateway":
            return web.Response(status=502)
        if self.broken == "drip":
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(int(HANG_S / 0.05)):
                await response.write(b"<p>")
                await asyncio.sleep(0.05)
            return response
        return await handler(request)

    async def start(self, request: web.Request) -> web.Response:
        session = request.match_info["session"]
        if session not in self.sessions:
            number = int(session.split("_")[-1]) if "fixed" in session else random.Random().randrange(GOALS)
            self.sessions[session] = self.goal(number)
        form = await request.post()
        if "search_query" in form:
            keywords = str(form["search_query"]).lower().split(" ")
            raise web.HTTPFound(f"/search_results/{session}/{quote(str(keywords), safe='')}/1")
        return self.page(
            session,
            f"""<form role="form" method="post" action="/{session}"><div>
            <input id="search_input" type="text" name="search_query" placeholder="Search..." required/>
            <button class="btn" type="submit"><i aria-hidden="true"></i>Search</button></div></form>""",
        )

    async def results(self, request: web.Request) -> web.Response:
        session, keywords, page = (request.match_info[name] for name in ("session", "keywords", "page"))
        words = ast.literal_eval(keywords)
        if words[0] == "<c>":
            raise web.HTTPInternalServerError(text=words[1])
        hits = self.catalogue.search(" ".join(words))
        number = int(page)
        here = f"/search_results/{session}/{quote(keywords, safe='')}"
        parts = [button("Back to Search", f"/{session}"), f"<h3>Page {number} (Total results: {len(hits)})</h3>"]
        if number > 1:
            parts.append(button("&lt; Prev", f"{here}/{number - 1}"))
        parts.append(button("Next &gt;", f"{here}/{number + 1}"))
        for index in hits[(number - 1) * PER_PAGE : number * PER_PAGE]:
            item = self.catalogue.items[index]
            address = f"/item_page/{session}/{item.code.upper()}/{quote(keywords, safe='')}/{number}/%7B%7D"
            parts.append(
                f"""<div class="list-group-item"><img src="x.jpg"><div class="media-body searched-product">
                <h4 class="mb-2 product-asin"><a class="product-link" href="{address}">{item.code.upper()}</a></h5>
                <h4 class="mb-2 product-title">{item.title} &amp; more</h5>
                <div><h5 class="my-2 product-price">${item.price}.0</h6></div>
                <!-- <h5 class="product-category">hidden</h5> --></div></div>"""
            )
        return self.page(session, *parts)

    async def item(self, request: web.Request) -> web.Response:
        session, code, keywords, page = (request.match_info[n] for n in ("session", "code", "keywords", "page"))
        options, item = ast.literal_eval(request.match_info["options"]), self.codes[code]
        words = quote(keywords, safe="")
        parts = [
            button("Back to Search", f"/{session}"),
            button("&lt; Prev", f"/search_results/{session}/{words}/{page}"),
        ]
        for name, values in item.options:
            parts.append(f"<h4>{name}</h4><div class='radio-toolbar'>")
            for number, value in enumerate(values):
                url = f"/item_page/{session}/{code}/{words}/{page}/{quote(str(options | {name: value}), safe='')}"
                parts.append(
                    f"""<input type="radio" id="radio_{name}{number}" name="{name}" value="{value}" data-url="{url}">
                    <label for="radio_{name}{number}">{value}</label>"""
                )
            parts.append("</div>")
        parts.append(f"<h2>{item.title}</h2><h4>Price: ${item.price}.0</h4><h4>Rating: {item.rating}</h4>")
        chosen = quote(str(options), safe="")
        parts += [
            button(tab, f"/item_sub_page/{session}/{code}/{words}/{page}/{tab}/{chosen}")
            for tab in ("Description", "Features", "Reviews")
        ]
        parts.append(button("Buy Now", f"/done/{session}/{code}/{chosen}"))
        return self.page(session, *parts)

    async def tab(self, request: web.Request) -> web.Response:
        session, code, keywords, page, tab, options = (
            request.match_info[name] for name in ("session", "code", "keywords", "page", "tab", "options")
        )
        item = self.codes[code]
        back = f"/item_page/{session}/{code}/{quote(keywords, safe='')}/{page}/{quote(options, safe='')}"
        inside = {
            "Description": f'<p class="product-info">{item.title}.\n Very   good.</p>',
            "Features": "<ul>"
            + "".join(f'<li><p class="product-info"> {a}</p></li>' for a in item.attributes)
            + "</ul>",
            "Reviews": """<div class="card"><h4 class="blue-text mt-3">"Fine"</h4><p class="text-left"><span>4.0</span>
            <span class="fa fa-star"></span></p><p class="content">I like it.</p></div>""",
        }[tab]
        return self.page(
            session,
            button("Back to Search", f"/{session}"),
            button("&lt; Prev", back),
            f'<div class="card card-body">{inside}</div>',
        )

    async def done(self, request: web.Request) -> web.Response:
        session, code, options = (request.match_info[name] for name in ("session", "code", "options"))
        worth = self.worth(self.sessions[session], self.codes[code], ast.literal_eval(options))
        text = f"""<h1>Thank you for shopping with us!</h1>
        <div style="display:none"><h4 id="asin">asin<pre>{code}</pre></p>
        <h4 id="goal-options">options<pre>[]</pre></h4></div>
        <h3 id="reward">Your score (min 0.0, max 1.0)<pre>{worth}</pre></h3>
        <h4 hidden>Reward Details <div id="reward_info"><pre>None</pre></div></h4>"""
        return web.Response(text=f"<!DOCTYPE html><html><body>{text}</body></html>", content_type="text/html")

    def worth(self, goal: Goal, item: Item, options: dict[str, str]) -> float:
        return score(self.catalogue, goal, item, options)

    def page(self, session: str, *parts: str) -> web.Response:
        instruction = html.escape(self.sessions[session].instruction)
        goal = f'<div id="instruction-text"><h4>Instruction:<br>{instruction}</h4></div>'
        style = "<style>h4 {color: red}</style><script>let h3 = 'Page 7';</script>"
        text = f"<!DOCTYPE html><html><head>{style}</head><body>{goal}{''.join(parts)}</body></html>"
        return web.Response(text=text, content_type="text/html")


def button(name: str, action: str) -> str:
    return f'<form method="post" action="{action}"><button type="submit" class="btn">{name}</button></form>'


@contextmanager
def serve(site: Site) -> Iterator[str]:
    """Serve a site on a free port from a thread; yield its address."""
    loop = asyncio.new_event_loop()
    started = threading.Event()
    address: list[str] = []

    async def start() -> web.AppRunner:
        runner = web.AppRunner(site.app, shutdown_timeout=0.1)
        await runner.setup()
        listener = web.TCPSite(runner, "127.0.0.1", 0)
        await listener.start()
        address.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        started.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(30), "the test's site did not start"
    yield address[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
