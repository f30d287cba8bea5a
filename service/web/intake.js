// Photographs on their way in: dropped, pasted or chosen.

const SMALLER_PX = 3072;

export class Intake {
  // `onPhoto` gets each picture file; `onNothing` is called for a drop or paste without one.
  constructor({ document, input, capture, target, onPhoto, onNothing }) {
    for (const each of [input, capture]) {
      each.addEventListener("change", () => {
        if (each.files.length) onPhoto(each.files[0]);
        each.value = ""; // So that the same file can be chosen again.
      });
    }
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      target.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) target.classList.remove("over");
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      target.classList.remove("over");
      const photo = pictureIn(event.dataTransfer);
      if (photo) onPhoto(photo);
      else onNothing();
    });
    document.addEventListener("paste", (event) => {
      const photo = pictureIn(event.clipboardData);
      if (photo) onPhoto(photo);
      else onNothing();
    });
  }
}

// Any file may be a picture that has no type here; the service tells which are none.
function pictureIn(transfer) {
  const files = [...(transfer?.files ?? [])];
  return files.find((file) => file.type.startsWith("image/")) ?? files[0];
}

// The picture as a JPEG of at most 3072 px a side, where the browser can read it; else null.
// For what the service refuses as too large or does not read, such as HEIC in Safari.
export async function asJpeg(photo) {
  try {
    const bitmap = await createImageBitmap(photo);
    const scale = Math.min(1, SMALLER_PX / Math.max(bitmap.width, bitmap.height));
    const canvas = new OffscreenCanvas(
      Math.round(bitmap.width * scale),
      Math.round(bitmap.height * scale),
    );
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
  } catch {
    return null;
  }
}
