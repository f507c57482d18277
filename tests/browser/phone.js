// One phone: JsSIP with the media of the browser.  What happens to it is kept until the test asks.
"use strict";

const happened = [];
const trace = [];
let wakeUp = () => {};
let ua = null;
let session = null;

function tell(kind, detail = {}) {
    happened.push({ kind, ...detail });
    wakeUp();
}

// The first event of that kind that nobody has seen yet, others are left for later; null if there
// is none within so many seconds.
async function event(kind, seconds) {
    const tooLate = Date.now() + 1000 * seconds;
    for (;;) {
        const found = happened.findIndex((one) => one.kind === kind);
        if (found >= 0) {
            return happened.splice(found, 1)[0];
        }
        const left = tooLate - Date.now();
        if (left <= 0) {
            return null;
        }
        await new Promise((wake) => {
            wakeUp = wake;
            setTimeout(wake, left);
        });
    }
}

function traced(direction, message) {
    trace.push({ sent: direction === ">", message });
    console.log(`${direction} ${message}`);
}

function start(options) {
    const socket = new JsSIP.WebSocketInterface(options.url);
    const send = socket.send.bind(socket);
    socket.send = (message) => {
        traced(">", message);
        return send(message);
    };
    ua = new JsSIP.UA({
        sockets: [socket],
        uri: options.uri,
        password: options.password,
        instance_id: options.instance,
        register_expires: 600,
    });
    for (const kind of ["connected", "disconnected", "unregistered"]) {
        ua.on(kind, () => tell(kind));
    }
    ua.on("registered", ({ response }) => tell("registered", { status: response.status_code }));
    ua.on("registrationFailed", ({ cause }) => tell("registrationFailed", { cause }));
    ua.on("newRTCSession", inCall);
    ua.on("newMessage", ({ originator, request }) => {
        if (originator === "remote") {
            tell("message", { from: request.from.uri.toString(), text: request.body });
        }
    });
    ua.start();
    const heard = ua.transport.ondata;
    ua.transport.ondata = (data) => {
        traced("<", data.message);
        heard(data);
    };
}

function inCall(data) {
    session = data.session;
    if (data.originator === "remote") {
        tell("incoming", { from: data.request.from.uri.toString() });
    }
    session.on("progress", () => tell("progress"));
    session.on("confirmed", () => tell("confirmed"));
    for (const kind of ["ended", "failed"]) {
        session.on(kind, ({ originator, cause }) => tell(kind, { originator, cause }));
    }
}

const media = { mediaConstraints: { audio: true, video: false }, pcConfig: { iceServers: [] } };

function call(uri) {
    ua.call(uri, media);
}

function answer() {
    session.answer(media);
}

function hangUp() {
    session.terminate();
}

function message(uri, text) {
    ua.sendMessage(uri, text, {
        eventHandlers: {
            succeeded: ({ response }) => tell("delivered", { status: response.status_code }),
            failed: ({ cause }) => tell("undelivered", { cause }),
        },
    });
}

// How many packets of sound have come from the other side.
async function packetsHeard() {
    let packets = 0;
    for (const report of (await session.connection.getStats()).values()) {
        if (report.type === "inbound-rtp") {
            packets += report.packetsReceived;
        }
    }
    return packets;
}
