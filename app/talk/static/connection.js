// The two ways to the front door. Each is opened with a microphone and gives back { send, close, level }.
// `hear` is called with every event, `lost` once when the connection ends by itself.

const OPEN_MS = 12000;

export class Refused extends Error {
  constructor(error) {
    super(error.message ?? "The front door does not answer.");
    this.code = error.code;
  }
}

export async function overWebrtc({ microphone, context, key, voice, hear, lost }) {
  const peer = new RTCPeerConnection();
  const channel = peer.createDataChannel("events");
  const speaker = new Audio();
  const level = meter(context, microphone);
  let closed = false;
  channel.onmessage = ({ data }) => hear(JSON.parse(data));
  microphone.getAudioTracks().forEach((track) => peer.addTrack(track, microphone));
  peer.ontrack = ({ streams }) => {
    speaker.srcObject = streams[0];
    speaker.play();
  };
  const close = () => {
    closed = true;
    speaker.srcObject = null;
    peer.close();
  };
  try {
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    const response = await fetch("/talk/offer", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) },
      body: JSON.stringify({ type: "offer", sdp: peer.localDescription.sdp, voice: voice || null }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Refused(answer.error ?? {});
    await peer.setRemoteDescription(answer);
    await within(OPEN_MS, new Promise((resolve) => (channel.onopen = resolve)));
  } catch (error) {
    close();
    throw error;
  }
  channel.onclose = () => {
    if (!closed) lost();
  };
  peer.onconnectionstatechange = () => {
    if (!closed && peer.connectionState === "failed") lost();
  };
  return { name: "WebRTC", send: (message) => channel.send(JSON.stringify(message)), close, level };
}

export async function overSocket({ microphone, context, key, voice, hear, lost }) {
  await context.audioWorklet.addModule("/talk/static/microphone.js");
  await context.audioWorklet.addModule("/talk/static/player.js");
  const address = new URL("/talk/audio", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address, ["carillon.talk.v1", ...(key ? [`key.${key}`] : [])]);
  socket.binaryType = "arraybuffer";
  const player = new AudioWorkletNode(context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
  const ear = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
  const source = context.createMediaStreamSource(microphone);
  let closed = false;
  const close = () => {
    closed = true;
    source.disconnect();
    player.disconnect();
    socket.close();
  };
  try {
    await within(OPEN_MS, new Promise((resolve, reject) => {
      socket.onerror = () => reject(new Refused({}));
      socket.onclose = () => reject(new Refused({}));
      socket.onopen = () => socket.send(JSON.stringify({ type: "start", rate_hz: context.sampleRate, voice: voice || null }));
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.type === "error") reject(new Refused(event));
        else if (event.type === "who") { hear(event); resolve(); }
      };
    }));
  } catch (error) {
    close();
    throw error;
  }
  socket.onmessage = ({ data }) => {
    if (data instanceof ArrayBuffer) {
      player.port.postMessage(data, [data]);
      return;
    }
    const event = JSON.parse(data);
    if (["hold", "resume", "stop"].includes(event.type)) player.port.postMessage(event.type);
    hear(event);
  };
  socket.onclose = socket.onerror = () => {
    if (!closed) lost();
    closed = true;
  };
  ear.port.onmessage = ({ data }) => {
    if (socket.readyState === WebSocket.OPEN) socket.send(data);
  };
  source.connect(ear);
  player.connect(context.destination);
  return { name: "WebSocket", send: (message) => socket.send(JSON.stringify(message)), close, level: meter(context, microphone) };
}

// A function that says how loud the microphone is, 0 to 1.
function meter(context, microphone) {
  const analyser = context.createAnalyser();
  analyser.fftSize = 512;
  context.createMediaStreamSource(microphone).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  return () => {
    analyser.getFloatTimeDomainData(samples);
    return Math.min(1, Math.sqrt(samples.reduce((sum, it) => sum + it * it, 0) / samples.length) * 6);
  };
}

function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  const done = new Promise((resolve) => {
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && resolve();
  });
  return Promise.race([done, new Promise((resolve) => setTimeout(resolve, 2000))]);
}

function within(ms, promise) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Refused({ message: "No connection came about in time." })), ms));
  return Promise.race([promise, late]);
}
