"""The pages of the studio in Chromium: the first load, and a stroke of the brush to the screen.

    python benchmarks/page.py [--loads 20] [--moves 200] [--edge 1024]

Starts `histoloom studio` with the bundled model. A load begins with an empty cache and ends when the page can be
painted on; bytes are those of all answers, as they travel. A stroke zigzags over a map with the widest brush and
with the usual one: `work` is the time that the page itself takes for one move of the pointer, from its handler to the
end of drawing; `frame` is from the pointer's event until the canvas is drawn, the wait for the next frame of the
screen included (a frame takes 16.7 ms).
"""

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser import DESK, launched
from studio_process import served_studio

PARTS = ("responseBodySize", "responseHeadersSize")
WATCH = """
(() => {
  const ask = requestAnimationFrame.bind(window);
  window.seen = { moved: 0, begun: 0, handled: 0, work: [], frame: [] };
  addEventListener("pointermove", (event) => { seen.moved = event.timeStamp; seen.begun = performance.now(); }, true);
  addEventListener("pointermove", () => { seen.handled = performance.now() - seen.begun; });
  window.requestAnimationFrame = (draw) => ask((time) => {
    const begun = performance.now();
    draw(time);
    document.querySelector("#stage canvas").getContext("2d").getImageData(0, 0, 1, 1);  // wait until it is drawn
    if (seen.moved) {
      seen.work.push(seen.handled + performance.now() - begun);
      seen.frame.push(performance.now() - seen.moved);
      seen.moved = 0;
    }
  });
})();
"""


def open_page(browser, port: int, script: str = ""):
    """A page with an empty cache, once it can be painted on; its seconds and the bytes that it took."""
    page = browser.new_context(viewport=DESK).new_page()
    page.add_init_script(script)
    sizes = []
    page.on("requestfinished", lambda asked: sizes.append(sum(asked.sizes()[part] for part in PARTS)))
    page.goto(f"http://127.0.0.1:{port}/")
    page.locator("#examples button").first.wait_for()
    page.wait_for_load_state("networkidle")
    ends = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.responseEnd)")
    return page, max(ends) / 1000, sum(sizes)


def stroke(page, moves: int, brush: int) -> dict[str, list[float]]:
    """Milliseconds of each move of a stroke."""
    page.locator("#brush").fill(str(brush))
    page.evaluate("seen.work = []; seen.frame = []")
    box = page.locator("#stage").bounding_box()
    places = [(box["x"] + 20 + (i * 37) % 300, box["y"] + 20 + (i * 101) % 300) for i in range(moves)]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places:
        page.mouse.move(*place)
        page.evaluate("new Promise(requestAnimationFrame)")
    page.mouse.up()
    return page.evaluate("seen")


def main() -> None:
    """Measure and print the rows of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, default=20)
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--edge", type=int, default=1024)
    asked = parser.parse_args()
    with served_studio("--users", "64") as port, launched() as browser:
        loads = [open_page(browser, port)[1:] for _ in range(asked.loads)]
        print(f"| first load, n = {asked.loads} | {statistics.median(s for s, _ in loads):.2f} s, "
              f"most {max(s for s, _ in loads):.2f} s | {max(size for _, size in loads) / 1000:.0f} kB |")  # fmt: skip
        page, _, _ = open_page(browser, port, WATCH)
        page.get_by_role("button", name="Empty map").click()
        for name in ("new-width", "new-height"):
            page.locator(f"#{name}").fill(str(asked.edge))
        page.get_by_role("button", name="Make the map").click()
        for brush in (24, asked.edge // 2):
            seen = stroke(page, asked.moves, brush)
            shares = [f"{name} {middle:.1f} ms, 95 % within {most:.1f} ms" for name in ("work", "frame")
                      for middle, most in [np.percentile(seen[name], [50, 95])]]  # fmt: skip
            print(f"| stroke of {brush} px on {asked.edge} px, n = {len(seen['work'])} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
