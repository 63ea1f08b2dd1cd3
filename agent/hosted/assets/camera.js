// The camera and pictures of it. Pictures live in memory only.

// Trouble is why there is no camera: insecure, refused, none, busy.
export class Trouble extends Error {
  constructor(reason) { super(reason); this.reason = reason; }
}

const reasons = {
  NotAllowedError: "refused", SecurityError: "refused", NotFoundError: "none", OverconstrainedError: "none", DevicesNotFoundError: "none",
  NotReadableError: "busy", AbortError: "busy", TrackStartError: "busy",
};

// open shows a camera in a video element and returns how to close it.
export async function open(video, facing) {
  if (!window.isSecureContext || !navigator.mediaDevices || !navigator.mediaDevices.getUserMedia) throw new Trouble("insecure");
  let media;
  try {
    media = await navigator.mediaDevices.getUserMedia({ audio: false, video: { facingMode: { ideal: facing }, width: { ideal: 1280 }, height: { ideal: 720 } } });
  } catch (e) {
    throw new Trouble(reasons[e.name] || "busy");
  }
  video.srcObject = media;
  await video.play();
  const close = () => {
    media.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  };
  return { close, ended: (then) => media.getVideoTracks()[0].addEventListener("ended", then) };
}

// shot takes what a video shows as JPEG, at most side pixels wide or high.
export async function shot(video, side, quality) {
  const w = video.videoWidth, h = video.videoHeight;
  if (!w || !h) return null;
  return draw(video, w, h, side, quality);
}

// reduce makes a JPEG of a file that the browser can show.
export async function reduce(file, side, quality) {
  const picture = await createImageBitmap(file, { imageOrientation: "from-image" });
  try {
    return await draw(picture, picture.width, picture.height, side, quality);
  } finally {
    picture.close();
  }
}

async function draw(source, w, h, side, quality) {
  const scale = Math.min(1, side / Math.max(w, h));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(w * scale);
  canvas.height = Math.round(h * scale);
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", quality));
}
