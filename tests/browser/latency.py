"""How long a slider's move takes to be seen: python -m tests.browser.latency [MOVES]

The seed's CNN, the lesson and Explore; from the slider's event to the page's next frame that shows the answer, in a real
browser on this machine. Prints the medians; ends with 1 if one of them is above 300 ms.
"""

import statistics
import sys

from unfooled import data, models
from unfooled.explorer import page, serve
from unfooled.explorer.room import Room
from unfooled.explorer.state import Bench

from .conftest import ARGUMENTS, CHROMIUM, DESKTOP

MOVE = """
([slider, stage, value, words]) => new Promise((done, late) => {
    const one = document.querySelector(`#${slider} input[type=range]`);
    const shown = document.querySelector(`#${stage}`);
    const watch = new MutationObserver(() => {
        if (!shown.textContent.includes(words)) return;
        watch.disconnect();
        requestAnimationFrame(() => done(performance.now() - start));
    });
    watch.observe(shown, {childList: true, subtree: true, characterData: true});
    setTimeout(() => late(new Error(`no ${words} in 20 s`)), 20000);
    const start = performance.now();
    one.value = value;
    one.dispatchEvent(new Event('input', {bubbles: true}));
})
"""
CASES = (
    ("the lesson", "The lesson", "lesson-eps", "lesson", lambda eps: f"{eps:.3g} ×"),
    ("Explore, FGSM", "Explore", "eps", "stage", lambda eps: f"±{eps:#.2g} shown"),
)


def moves(looked_at, slider, stage, words, count):
    """Milliseconds of each move; the first one, which finds everything cold, is left out."""
    taken = []
    for k in range(count + 1):
        eps = round(0.02 + 0.01 * (k % 30), 3)
        taken.append(looked_at.evaluate(MOVE, [slider, stage, eps, words(eps)]))
        looked_at.wait_for_timeout(150)
    return taken[1:]


def main(count=20):
    from playwright.sync_api import sync_playwright

    room = Room(Bench(models.load("fashion-mnist/plain"), data.load("fashion-mnist-sample"), "fashion-mnist/plain"))
    served = serve.serve(lambda: page.build(room))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        looked_at = browser.new_page(viewport=DESKTOP)
        looked_at.goto(served.address)
        looked_at.wait_for_selector("#lesson .lesson")
        looked_at.get_by_role("tab", name="Explore").click()
        looked_at.locator("#curve").get_by_text("of 200 images hold at").wait_for(timeout=60_000)
        worst = 0.0
        for name, tab, slider, stage, words in CASES:
            looked_at.get_by_role("tab", name=tab).click()
            taken = moves(looked_at, slider, stage, words, count)
            worst = max(worst, statistics.median(taken))
            print(f"{name}: median {statistics.median(taken):.0f} ms of {count} moves, slowest {max(taken):.0f} ms")
        browser.close()
    served.close()
    return int(worst > 300)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
