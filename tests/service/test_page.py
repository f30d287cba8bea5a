"""The page at /, in a real browser against a real service."""

import base64
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Route,
    expect,
    sync_playwright,
)

from service.errors import problems
from service.media import MultipartWriter
from service.routes.page import FILES, WEB
from tests.bundles import ANCHORS, GROUPS, STEP, write_tiny_bundle
from tests.service.conftest import Server, StartServer, encoded, pixels

CHROMIUM = shutil.which("chromium")
PLACES = 16 * 5 + 1

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, parser_file: Path) -> Iterator[Server]:
    """A server of two models: `tiny`, and `steps`, which knows its anchors only."""
    folder = tmp_path_factory.mktemp("page")
    write_tiny_bundle(folder / "models" / "tiny")
    write_tiny_bundle(folder / "models" / "steps", name="steps", decoder_per_anchor=True)
    settings = {"models": folder / "models", "default_model": "tiny", "parser": parser_file}
    running = Server(
        folder / "server.log", {**settings, "provider": "cpu", "measuring_s": 0, "batch": 8}
    )
    running.wait_until_ready()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, photo: bytes) -> Iterator[Browser]:
    """Chromium, whose camera films the photo."""
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    film.write_bytes(photo * 30)
    arguments = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        "--disable-gpu",
        f"--use-file-for-fake-video-capture={film}",
    ]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class Watch:
    """What a page must not do: fail, break its own policy, or ask another host."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._faults: list[str] = []

    def over(self, page: Page) -> Page:
        page.set_default_timeout(15_000)
        # Years come one after the other, and the machine may have other work.
        expect.set_options(timeout=15_000)
        page.on("pageerror", lambda error: self._faults.append(str(error)))
        page.on("console", self._hear)
        page.on("request", self._follow)
        return page

    def end(self) -> None:
        faults, self._faults = self._faults, []
        assert faults == []

    def _hear(self, line: ConsoleMessage) -> None:
        # A refusal that the page puts into words is a line on the console too.
        if line.type == "error" and "Failed to load resource" not in line.text:
            self._faults.append(line.text)

    def _follow(self, request: Request) -> None:
        if not request.url.startswith((self._server.url, "blob:", "data:")):
            self._faults.append(request.url)


def visit(page: Page, server: Server) -> Page:
    page.goto(server.url)
    expect(page.locator("#anchors li")).to_have_count(6)
    return page


@pytest.fixture(scope="module")
def watched_page(served: Server, browser: Browser) -> Iterator[tuple[Page, Watch]]:
    context = browser.new_context(locale="en-GB", reduced_motion="reduce")
    watch = Watch(served)
    yield watch.over(context.new_page()), watch
    context.close()


@pytest.fixture
def page(served: Server, watched_page: tuple[Page, Watch]) -> Iterator[Page]:
    """The page as it is at first."""
    page, watch = watched_page
    yield visit(page, served)
    page.unroute_all(behavior="ignoreErrors")
    watch.end()


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(served: Server, browser: Browser) -> Iterator[OpenPage]:
    """Opens the page in a context with options of its own."""
    contexts: list[BrowserContext] = []
    watch = Watch(served)

    def open_one(**options: Any) -> Page:
        contexts.append(browser.new_context(**{"reduced_motion": "reduce", **options}))
        return visit(watch.over(contexts[-1].new_page()), served)

    yield open_one
    for context in contexts:
        context.close()
    watch.end()


@pytest.fixture(scope="module")
def faceless() -> bytes:
    return encoded(Image.new("RGB", (400, 300), (90, 120, 90)), "PNG")


@pytest.fixture(scope="module")
def two_faces(astronaut: NDArray[np.uint8]) -> bytes:
    """The astronaut, and her mirror image a little smaller."""
    canvas = np.full((512, 1100, 3), 90, np.uint8)
    canvas[:, :512] = astronaut
    canvas[:448, 560:1008] = np.asarray(Image.fromarray(astronaut).resize((448, 448)))[:, ::-1]
    return encoded(Image.fromarray(canvas), "PNG")


def choose(page: Page, photo: bytes, name: str = "face.jpg", kind: str = "image/jpeg") -> None:
    page.set_input_files("#photo", {"name": name, "mimeType": kind, "buffer": photo})


def wait_for_six(page: Page) -> None:
    expect(page.locator("#anchors img")).to_have_count(6)
    expect(page.locator("#page")).not_to_have_class(re.compile("busy"))
    expect(page.locator("#downloads")).to_be_enabled()


def wait_for_years(page: Page) -> None:
    wait_for_six(page)
    expect(page.locator("#status")).to_have_text(re.compile(r"Every year is ready|所有年龄"))


def level(page: Page) -> list[float]:
    """Mean red, green and blue of the large picture's background, its top left corner."""
    return page.evaluate(
        """() => {
          const canvas = document.createElement("canvas");
          const context = canvas.getContext("2d");
          context.drawImage(document.querySelector("#picture"), 0, 0);
          return [...context.getImageData(1, 1, 1, 1).data.slice(0, 3)];
        }"""
    )


def go(page: Page, place: int) -> None:
    page.locator("#age").fill(str(place))


def face_of(page: Page) -> str:
    """The face id of the next picture that the page asks for."""
    with page.expect_response(lambda response: "/age" in response.url) as answer:
        page.click("button[data-kind=picture]")
    return answer.value.headers["x-face-id"]


def test_every_file_of_the_page_is_served_with_its_type(served: Server):
    assert {*FILES, "index.html"} == {path.name for path in WEB.iterdir()}
    for name, kind in FILES.items():
        response = served.client.get(f"/web/{name}")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
        assert response.headers["cache-control"] == "no-cache"
        assert response.text == (WEB / name).read_text()


@pytest.mark.parametrize("name", ["index.html", "..%2f__init__.py", "%2e%2e", "none.js"])
def test_no_other_file_is_served(served: Server, name: str):
    assert served.client.get(f"/web/{name}").json()["code"] == "not_found"


def test_the_page_s_markup_has_no_scripts_or_styles_of_its_own():
    markup = (WEB / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)", markup)


def test_a_dropped_photograph_becomes_six_faces(page: Page, photo: bytes):
    page.evaluate(
        """(data) => {
          const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], "face.jpg", { type: "image/jpeg" }));
          const event = { bubbles: true, cancelable: true, dataTransfer: transfer };
          document.querySelector("#drop").dispatchEvent(new DragEvent("drop", event));
        }""",
        base64.b64encode(photo).decode(),
    )
    wait_for_six(page)
    captions = page.locator("#anchors .caption").all_inner_texts()
    assert captions == [name.replace("-", "–") for name in ANCHORS]
    assert page.locator("#anchors img").evaluate_all("all => all.map(i => i.naturalWidth)") == (
        [64] * 6
    )


def test_a_pasted_photograph_is_taken(page: Page, astronaut: NDArray[np.uint8]):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (data) => {
          const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
          const picture = new Blob([bytes], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
        }""",
        base64.b64encode(encoded(Image.fromarray(astronaut), "PNG")).decode(),
    )
    page.keyboard.press("Control+V")
    wait_for_six(page)


def test_pasted_text_is_no_photograph(page: Page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("() => navigator.clipboard.writeText('a face')")
    page.keyboard.press("Control+V")
    expect(page.locator("#problem")).to_contain_text("no picture")


def test_the_camera_takes_a_photograph(page: Page):
    page.click("#use-camera")
    expect(page.locator("#take")).to_be_enabled()
    page.click("#take")
    wait_for_six(page)
    expect(page.locator("#camera")).to_be_hidden()
    assert page.evaluate("() => document.querySelector('#finder').srcObject") is None


def test_a_camera_that_is_refused_is_explained(page: Page):
    page.evaluate(
        """() => {
          navigator.mediaDevices.getUserMedia = () =>
            Promise.reject(new DOMException("", "NotAllowedError"));
        }"""
    )
    page.click("#use-camera")
    expect(page.locator("#problem")).to_contain_text("not allowed to use the camera")
    expect(page.locator("#camera")).to_be_hidden()


def test_a_picture_that_only_the_browser_reads_is_sent_as_a_jpeg(
    page: Page, astronaut: NDArray[np.uint8]
):
    choose(page, encoded(Image.fromarray(astronaut), "AVIF"), "face.avif", "image/avif")
    wait_for_six(page)
    expect(page.locator("#problem")).to_be_empty()


def test_the_slider_shows_another_picture_at_every_place_older_to_the_right(
    page: Page, photo: bytes
):
    choose(page, photo)
    wait_for_years(page)
    seen, greys = set(), []
    for place in range(PLACES):
        go(page, place)
        seen.add(page.get_attribute("#picture", "src"))
        greys.append(level(page)[0])
    assert len(seen) == PLACES
    assert greys == pytest.approx(np.linspace(greys[0], greys[0] + 5 * STEP, PLACES), abs=2.5)
    expect(page.locator("#age")).to_have_attribute("aria-valuetext", "60 years")
    go(page, 0)
    expect(page.locator("#age")).to_have_attribute("aria-valuetext", "1 year")


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_parts_are_told_apart_however_they_arrive(page: Page, chunk: int):
    bodies = [b"\r\n--edge--\r\n", b"", bytes(range(256))]
    writer = MultipartWriter()
    stream = b"".join(
        writer.part(body, {"X-Target": str(n), "Content-Length": str(len(body))})
        for n, body in enumerate(bodies)
    )
    found = page.evaluate(
        """async ({ data, type, chunk }) => {
          const { parts } = await import("/web/stream.js");
          const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
          const body = new ReadableStream({
            start(controller) {
              for (let at = 0; at < bytes.length; at += chunk) {
                controller.enqueue(bytes.slice(at, at + chunk));
              }
              controller.close();
            },
          });
          const found = [];
          const response = new Response(body, { headers: { "Content-Type": type } });
          for await (const part of parts(response)) {
            found.push([part.headers.get("x-target"), [...part.bytes]]);
          }
          return found;
        }""",
        {
            "data": base64.b64encode(stream + writer.end()).decode(),
            "type": writer.media_type,
            "chunk": chunk,
        },
    )
    assert found == [[str(n), list(body)] for n, body in enumerate(bodies)]


def test_the_slider_s_thumb_lies_under_the_frames(page: Page, photo: bytes):
    choose(page, photo)
    wait_for_six(page)
    frames, slider = page.locator(".frame"), page.locator("#age").bounding_box()
    thumb = float(page.evaluate("() => getComputedStyle(document.documentElement)"
                                ".getPropertyValue('--thumb')").removesuffix("px"))  # fmt: skip
    assert slider is not None
    for index in range(6):
        frame = frames.nth(index).bounding_box()
        assert frame is not None
        centre = slider["x"] + thumb / 2 + (slider["width"] - thumb) * index / 5
        assert frame["x"] + frame["width"] / 2 == pytest.approx(centre, abs=1)


def ages_in(request: Request) -> list[float]:
    """The ages that a request of the page asks for."""
    return [float(age) for age in re.findall(r'"age"\r\n\r\n([\d.]+)', request.post_data or "")]


def test_anchors_stand_in_for_years_that_are_still_being_made(page: Page, photo: bytes):
    held: list[Route] = []

    def hold(route: Route) -> None:
        if ages_in(route.request):
            held.append(route)
        else:
            route.continue_()

    page.route("**/age", hold)
    choose(page, photo)
    wait_for_six(page)
    pictures = page.locator("#anchors img").evaluate_all("all => all.map(image => image.src)")
    for place, index in ((0, 0), (7, 0), (9, 1), (80, 5)):
        go(page, place)
        assert page.get_attribute("#picture", "src") == pictures[index]
    expect(page.locator("#progress")).to_be_visible()
    held[0].continue_()
    page.unroute("**/age")
    wait_for_years(page)


def test_the_years_around_the_slider_come_first_and_coarsely(page: Page, photo: bytes):
    asked: list[list[float]] = []
    page.on("request", lambda request: asked.append(ages_in(request)))
    page.evaluate("() => { document.querySelector('#age').value = 80 }")
    choose(page, photo)
    wait_for_years(page)
    asked = [ages for ages in asked if ages]
    assert [len(ages) for ages in asked] == [15, 20, 20, 20]
    for ages in asked:
        assert ages == sorted(ages, reverse=True)
    assert asked[0][0] == pytest.approx(34.5 + 25 * 3 / 4)
    assert asked[2][-1] > asked[3][0]


def test_play_runs_through_the_life(page: Page, photo: bytes):
    choose(page, photo)
    wait_for_years(page)
    go(page, 76)
    page.click("#play")
    expect(page.locator("#play")).to_have_text("Pause")
    expect(page.locator("#age")).to_have_value("80")
    expect(page.locator("#play")).to_have_text("Play")


def test_another_group_is_shown_at_the_same_age(page: Page, photo: bytes):
    choose(page, photo)
    wait_for_six(page)
    go(page, 80)
    neutral = level(page)
    before = page.get_attribute("#picture", "src")
    page.locator("#groups label", has_text="Female").click()
    expect(page.locator("#picture")).not_to_have_attribute("src", before or "")
    wait_for_six(page)
    expect(page.locator("#age")).to_have_value("80")
    female = level(page)
    # The tiny model adds blue for neutral, red for female.
    assert neutral[2] - neutral[0] > 10
    assert female[0] - female[2] > 10


def test_the_photo_is_kept_only_while_the_face_is_looked_at_in_it(
    served: Server, page: Page, photo: bytes
):
    def kept() -> bool:
        return served.client.get(f"/faces/{face_of(page)}").json()["photo_kept"]

    width = "() => document.querySelector('#picture').naturalWidth"
    choose(page, photo)
    wait_for_six(page)
    assert not kept()
    for view, words, side in (("photo", "In the photograph", 512), ("face", "Face", 64)):
        with page.expect_response("**/age"):
            page.locator("#views label", has_text=words).click()
        wait_for_six(page)
        assert page.evaluate(width) == side
        assert kept() == (view == "photo")


def test_a_model_without_ages_between_has_no_slider_and_says_why(page: Page, photo: bytes):
    asked: list[str] = []
    page.select_option("#model", "steps")
    page.on("request", lambda request: asked.append(request.url))
    choose(page, photo)
    expect(page.locator("#status")).to_have_text("All 6 ages are ready.")
    expect(page.locator("#scrub")).to_be_hidden()
    expect(page.locator("#films")).to_be_hidden()
    expect(page.locator("#no-slider")).to_contain_text("steps knows these 6 ages and none between")
    page.locator("#anchors button").nth(5).click()
    expect(page.locator("#years")).to_have_text("50–69")
    assert not [url for url in asked if "interpolate" in url]
    page.select_option("#model", "tiny")
    wait_for_six(page)
    expect(page.locator("#scrub")).to_be_visible()


def test_what_is_kept_is_what_the_service_gives(served: Server, page: Page, photo: bytes):
    choose(page, photo)
    wait_for_six(page)

    def kept(kind: str) -> tuple[str, bytes]:
        with page.expect_download() as download:
            page.click(f"button[data-kind={kind}]")
        return download.value.suggested_filename, download.value.path().read_bytes()

    name, picture = kept("picture")
    assert name == "anchorage-0-2.png"
    expected = served.client.post("/age", data={"target": "0-2"}, files={"image": photo})
    np.testing.assert_array_equal(pixels(picture), pixels(expected.content))
    go(page, 72)
    name, picture = kept("picture")
    assert name == "anchorage-47.png"
    expected = served.client.post("/age", data={"age": "47"}, files={"image": photo})
    np.testing.assert_array_equal(pixels(picture), pixels(expected.content))
    name, sheet = kept("sheet")
    assert name == "anchorage-sheet.png"
    assert pixels(sheet).shape[1] > 6 * 64
    name, film = kept("mp4")
    with av.open(io.BytesIO(film)) as opened:
        assert len(list(opened.decode(video=0))) == 72
    for kind in ("webp", "gif"):
        name, animation = kept(kind)
        assert name == f"anchorage-life.{kind}"
        with Image.open(io.BytesIO(animation)) as image:
            assert image.format == kind.upper()
            assert image.n_frames > 1


def test_a_picture_without_a_face_is_refused_in_words_and_the_old_one_stays(
    page: Page, photo: bytes, faceless: bytes
):
    choose(page, faceless, "none.png", "image/png")
    expect(page.get_by_role("alert")).to_contain_text("No face was found")
    expect(page.locator("#drop")).to_be_visible()
    choose(page, photo)
    wait_for_six(page)
    expect(page.get_by_role("alert")).to_be_empty()
    before = page.get_attribute("#picture", "src")
    choose(page, faceless, "none.png", "image/png")
    expect(page.get_by_role("alert")).to_contain_text("No face was found")
    assert page.get_attribute("#picture", "src") == before
    go(page, 80)
    assert page.get_attribute("#picture", "src") != before


def test_what_is_no_image_is_refused_in_the_service_s_words(page: Page):
    choose(page, b"not a picture", "notes.txt", "text/plain")
    expect(page.get_by_role("alert")).to_have_text(
        "The image must be a JPEG, PNG, WebP or GIF file."
    )


def test_one_of_several_faces_can_be_picked(served: Server, page: Page, two_faces: bytes):
    choose(page, two_faces, "two.png", "image/png")
    wait_for_six(page)
    chips = page.locator("#faces button")
    expect(chips).to_have_count(2)
    expect(page.locator("#which")).to_contain_text("2 faces were found")
    expect(chips.nth(0)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Face 2 of 2").click()
    expect(chips.nth(1)).to_have_attribute("aria-pressed", "true")
    wait_for_six(page)
    shown = served.client.get(f"/faces/{face_of(page)}").json()
    assert shown["face_index"] == 1


def test_a_deleted_face_is_gone_and_the_page_as_new(served: Server, page: Page, photo: bytes):
    choose(page, photo)
    wait_for_six(page)
    face = face_of(page)
    assert served.client.get(f"/faces/{face}").status_code == 200
    page.click("#forget")
    expect(page.locator("#status")).to_have_text("The face was deleted.")
    assert served.client.get(f"/faces/{face}").status_code == 404
    expect(page.locator("#drop")).to_be_visible()
    expect(page.locator("#anchors img")).to_have_count(0)
    expect(page.locator("#sent")).to_be_hidden()
    expect(page.locator("#choose")).to_be_focused()


def test_another_photograph_makes_the_first_face_forgotten(
    served: Server, page: Page, photo: bytes, two_faces: bytes
):
    choose(page, photo)
    wait_for_six(page)
    face = face_of(page)
    with page.expect_response(f"**/faces/{face}"):
        choose(page, two_faces, "two.png", "image/png")
    wait_for_six(page)
    assert served.client.get(f"/faces/{face}").json()["code"] == "unknown_face"


def test_a_face_that_expired_is_taken_in_again(served: Server, page: Page, photo: bytes):
    choose(page, photo)
    wait_for_six(page)
    before = page.get_attribute("#picture", "src")
    served.client.delete(f"/faces/{face_of(page)}")
    page.locator("#groups label", has_text="Male").last.click()
    expect(page.locator("#picture")).not_to_have_attribute("src", before or "")
    wait_for_six(page)
    expect(page.locator("#problem")).to_be_empty()


def test_an_answer_that_breaks_off_is_told_and_what_came_stays(
    served: Server, page: Page, photo: bytes
):
    def cut(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.body()[:-400])

    page.route("**/age", cut)
    choose(page, photo)
    expect(page.get_by_role("alert")).to_have_text("The answer broke off. Try again.")
    assert page.locator("#anchors img").count() == 5


def test_a_service_that_is_gone_is_told(page: Page, photo: bytes):
    page.context.set_offline(True)
    choose(page, photo)
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    page.context.set_offline(False)


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_is_busy_is_asked_again(page: Page, photo: bytes, status: int):
    busy = {"status": status, "headers": {"Retry-After": "1"}, "body": '{"code": "x"}'}
    page.route("**/age", lambda route: route.fulfill(**busy), times=1)
    choose(page, photo)
    expect(page.get_by_role("status")).to_contain_text("busy")
    wait_for_six(page)
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_key_is_asked_for_where_the_service_wants_one(
    start_server: StartServer, browser: Browser, tmp_path: Path, photo: bytes
):
    (tmp_path / "keys").write_text("ann:ann-0123456789-0123456789\n")
    server = start_server(api_keys=tmp_path / "keys", measuring_s=0)
    context = browser.new_context(locale="en-GB", reduced_motion="reduce")
    page = context.new_page()
    page.goto(server.url)
    reason = page.locator("#key-reason")
    expect(reason).to_contain_text("Whoever runs it")
    for key in ("bob-0123456789-0123456789", "ann-0123456789-0123456789"):
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        if key.startswith("bob"):
            expect(reason).to_contain_text("does not know this key")
    expect(page.locator("#key")).to_be_hidden()
    expect(page.locator("#anchors li")).to_have_count(6)
    choose(page, photo)
    wait_for_years(page)
    with page.expect_download():
        page.click("button[data-kind=sheet]")
    page.reload()
    expect(page.locator("#anchors li")).to_have_count(6)
    context.close()
    page = browser.new_context(locale="en-GB").new_page()
    page.goto(server.url)
    expect(page.locator("#key-reason")).to_contain_text("Whoever runs it")
    page.keyboard.press("Escape")
    expect(page.locator("#problem")).to_contain_text("needs an API key")
    page.context.close()


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_nothing_is_wider_than_a_phone(open_page: OpenPage, two_faces: bytes, locale: str):
    page = open_page(locale=locale, viewport={"width": 360, "height": 740}, has_touch=True)
    width = "() => document.documentElement.scrollWidth"
    assert page.evaluate(width) == 360
    choose(page, two_faces, "two.png", "image/png")
    wait_for_years(page)
    assert page.evaluate(width) == 360
    page.locator("#views label").last.click()
    expect(page.locator("#print")).to_have_class("photo")
    assert page.evaluate(width) == 360


def test_the_page_speaks_chinese(open_page: OpenPage, photo: bytes, faceless: bytes):
    page = open_page(locale="zh-CN")
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    expect(page.locator("#choose")).to_have_text("选择照片")
    choose(page, faceless, "none.png", "image/png")
    expect(page.get_by_role("alert")).to_contain_text("没有找到脸")
    choose(page, photo)
    wait_for_years(page)
    expect(page.locator("#age")).to_have_attribute("aria-valuetext", "1 岁")
    page.select_option("#language", "en")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator("#choose")).to_have_text("Another photograph")
    expect(page.locator("#status")).to_have_text("Every year is ready.")
    expect(page.locator("#groups label").first).to_have_text("Neutral")
    page.reload()
    expect(page.locator("#choose")).to_have_text("Choose a photograph")


def test_the_catalogues_have_the_same_words_and_know_every_problem(page: Page):
    catalogues = page.evaluate(
        """async () => {
          const { english } = await import("/web/english.js");
          const { chinese } = await import("/web/chinese.js");
          const keys = (catalogue) => Object.fromEntries(
            Object.entries(catalogue).map(([key, value]) => [
              key,
              typeof value === "object" ? Object.keys(value) : [],
            ]),
          );
          return [keys(english), keys(chinese)];
        }"""
    )
    english, chinese = catalogues
    assert english.keys() == chinese.keys()
    assert set(english["groups"]) == set(chinese["groups"]) == set(GROUPS)
    assert {kind.code for kind in problems()} <= set(chinese["problems"])
    assert set(english["problems"]) <= set(chinese["problems"])
    script = "".join((WEB / name).read_text() for name in FILES) + (WEB / "index.html").read_text()
    used = set(re.findall(r'(?:say|tell)\("(\w+)"|data-(?:words|label)="(\w+)"', script))
    assert {one or other for one, other in used} <= set(english)


def test_the_keyboard_alone_is_enough(page: Page, photo: bytes, tmp_path: Path):
    file = tmp_path / "face.jpg"
    file.write_bytes(photo)
    # Listening begins some time after it is asked for: before the key is pressed, then.
    page.on("filechooser", lambda _: None)

    def tab_to(selector: str) -> None:
        for _ in range(40):
            if page.evaluate("(s) => document.activeElement.matches(s)", selector):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{selector} cannot be reached")

    tab_to("#choose")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(file)
    wait_for_years(page)
    tab_to("#age")
    page.keyboard.press("End")
    old = page.get_attribute("#picture", "src")
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute("#picture", "src") != old
    tab_to("input[name=group]")
    page.keyboard.press("ArrowRight")
    expect(page.locator("input[name=group][value=female]")).to_be_checked()
    expect(page.locator("input[name=group][value=female]")).to_be_focused()
    wait_for_six(page)
    tab_to("button[data-kind=picture]")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith(".png")
    tab_to("#forget")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("The face was deleted.")


@pytest.mark.parametrize(("scheme", "locale"), [("light", "en-GB"), ("dark", "zh-CN")])
def test_axe_finds_nothing_serious(
    open_page: OpenPage, two_faces: bytes, faceless: bytes, scheme: str, locale: str
):
    page = open_page(color_scheme=scheme, locale=locale)

    def assert_sound() -> None:
        found = Axe().run(page).response["violations"]
        grave = [each for each in found if each["impact"] in ("serious", "critical")]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in grave] == []

    choose(page, faceless, "none.png", "image/png")
    expect(page.get_by_role("alert")).not_to_be_empty()
    assert_sound()
    choose(page, two_faces, "two.png", "image/png")
    wait_for_years(page)
    assert_sound()
    page.click("#use-camera")
    expect(page.locator("#take")).to_be_enabled()
    assert_sound()
