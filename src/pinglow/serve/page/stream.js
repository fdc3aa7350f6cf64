// Frames one after the other over a WebSocket, answered with tracks: a camera, or files of a sequence.

import { bearer, query } from "./api.js";
import { ofPicture } from "./counts.js";

const PATIENCE = 20000;  // ms for an answer
const PROTOCOL = "pinglow";

export class Stream {
  // words: of /v1/streams; open() before anything is sent
  constructor(words) {
    this.words = words;
  }

  async open() {
    const address = new URL(query("v1/streams", this.words), location.href);
    address.protocol = address.protocol.replace("http", "ws");
    this.socket = new WebSocket(address, [PROTOCOL, ...bearer()]);
    this.socket.addEventListener("close", (event) => this.fail(event.reason
      || "The stream has ended: see whether the service has room for one more, then start it again."));
    this.socket.addEventListener("message", (event) => {
      const { dropped, latency_ms: late, ...line } = JSON.parse(event.data);
      this.answered?.(line);
    });
    await new Promise((resolve, reject) => {
      this.failed = reject;
      this.socket.addEventListener("open", resolve, { once: true });
    });
  }

  // The line of one frame; the next is sent when it is there, so none is dropped.
  send(content) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.fail("The service does not answer the stream: start it again."), PATIENCE);
      const end = (settle) => (value) => { clearTimeout(timer); settle(value); };
      this.answered = end(resolve);
      this.failed = end(reject);
      this.socket.send(content);
    });
  }

  get isOpen() { return this.socket?.readyState === WebSocket.OPEN; }

  fail(reason) {
    this.failed?.(new Error(reason));
    this.socket?.close();
  }

  close() {
    this.socket?.close();
  }
}

const LARGEST = 640;  // px, the long side of a camera's frames

export class Camera {
  async open(device) {
    if (!navigator.mediaDevices) throw new Error("A browser gives cameras to pages of this machine (localhost) or of https only.");
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: device ? { deviceId: { exact: device } } : true });
    } catch (error) {
      throw new Error(error.name === "NotFoundError" ? "There is no camera: connect one, then press Camera again."
        : "The camera was not given: allow it for this page, and close what else uses it.");
    }
    this.video = document.createElement("video");
    Object.assign(this.video, { srcObject: this.stream, muted: true, playsInline: true });
    await this.video.play();
  }

  get size() {
    const { videoWidth, videoHeight } = this.video, scale = Math.min(1, LARGEST / Math.max(videoWidth, videoHeight));
    return [Math.round(videoWidth * scale), Math.round(videoHeight * scale)];
  }

  // Gray counts of the picture of now.
  take() {
    return ofPicture(this.video, ...this.size);
  }

  async others() {
    const devices = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    const used = this.stream.getVideoTracks()[0].getSettings().deviceId;
    return devices.map(({ deviceId, label }, place) => ({ id: deviceId, label: label || `camera ${place + 1}`, used: deviceId === used }));
  }

  close() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
  }
}
