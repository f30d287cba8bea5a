// Files to keep: a picture, the contact sheet, or the film of a life.

const FRAMES = 72;
const FRAMES_A_SECOND = 18;
const FILM_PX = 1080;
const FILMS = { mp4: "video/mp4", webp: "image/webp", gif: "image/gif" };

// Fetches what `kind` names and hands it to the browser; gives the file's name. `shown` tells face,
// model, group and view, and `target`, the anchor or the age in years of the picture.
export async function download(service, kind, shown) {
  const { name, response } = await made(service, kind, shown);
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  return name;
}

async function made(service, kind, { face, model, group, view, target }) {
  const fields = { face, model, group, view };
  if (kind === "picture") {
    // A whole photograph as PNG would be many times as large as it was.
    const format = view === "photo" ? "jpeg" : "png";
    const years = target.anchor ?? target.age;
    const response = await service.age({ ...fields, ...targetOf(target) }, `image/${format}`);
    return { name: `anchorage-${years}.${format.replace("jpeg", "jpg")}`, response };
  }
  if (kind === "sheet") {
    const response = await service.age({ ...fields, target: "all" }, "image/png");
    return { name: "anchorage-sheet.png", response };
  }
  const film = { ...fields, frames: FRAMES, fps: FRAMES_A_SECOND };
  if (view === "photo") film.longest_px = FILM_PX;
  const response = await service.interpolate(film, FILMS[kind]);
  return { name: `anchorage-life.${kind}`, response };
}

function targetOf({ anchor, age }) {
  return anchor === undefined ? { age } : { target: anchor };
}
