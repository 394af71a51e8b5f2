// A websocket that comes back: it waits longer after each failure, and never the same time as all the others.

const GONE = 4404; // the pub is not the visitor's, or no longer there, or nobody is signed in
const LONGEST = 30_000;
const HIDDEN_FOR = 60_000; // nobody has looked for so long: let the server stop counting

export function follow(path, { onMessage, onState }) {
  let socket = null, failures = 0, timer = 0, asleep = 0;

  function open() {
    const url = new URL(path, location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(url);
    socket.onmessage = (event) => {
      // Only what arrives proves that it works: a server that opens and closes at once counts as a failure.
      failures = 0;
      onState("live");
      onMessage(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      socket = null;
      if (event.code === GONE) return onState("gone");
      if (document.hidden && asleep) return onState("paused");
      onState("reconnecting…");
      timer = setTimeout(open, Math.min(LONGEST, 500 * 2 ** failures++) * (0.5 + Math.random()));
    };
  }

  function wake() {
    clearTimeout(asleep);
    asleep = 0;
    clearTimeout(timer);
    failures = 0;
    if (!socket) open();
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return wake();
    asleep = setTimeout(() => socket?.close(), HIDDEN_FOR);
  });
  addEventListener("online", wake);
  // A browser notices a lost network long before it gives up a socket.
  addEventListener("offline", () => {
    onState("reconnecting…");
    socket?.close();
  });
  addEventListener("pageshow", (event) => event.persisted && wake());
  open();
}
