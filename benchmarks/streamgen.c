/*
 * streamgen: closed-loop SIP load over connections; phones on one side, a registrar over UDP behind the
 * edge on the other.
 *
 *     streamgen register [options]   REGISTERs through the edge to our registrar on 127.0.0.1:5090
 *     streamgen idle [options]       one REGISTER on each connection; then they say nothing
 *
 *     -t tcp|tls|ws|wss (tcp)                          -s SECONDS  to measure (5)
 *     -p PORT  of the device on 127.0.0.1 (5060)       -w SECONDS  before that (0.5)
 *     -c N     connections (200)                       -P PID,...  whose CPU time is measured
 *     -n N     outstanding on each (1)                 -r N     new connections a second, idle (1000)
 *     -R PORT  of our registrar (5090)
 *
 * Each connection is a phone with an address of its own (127.1.x.y).  On each, N transactions are
 * outstanding all the time: when one ends, the next begins.  One that has not ended after two seconds
 * is lost.  An answer must be a 200 with a Path that has a token, come on the connection of its request
 * and fit it by Call-ID and CSeq; anything else counts as bad, and the first is printed.  No connection
 * may end.
 *
 * Prints one line of JSON when it has measured.  `idle` measures from the first connect to the last
 * answer, prints that, waits until its standard input ends, and prints how many connections are left.
 */
#include "datagrams.h"
#include "messages.h"
#include "streams.h"

enum { RISING = 32 }; /* connections that are being set up at the same time */
enum { CORE_EVENT = UINT32_MAX, INPUT_EVENT = UINT32_MAX - 1 };

/* A Call-ID begins with generation and slot, so that every answer finds its transaction.  Slots i*n to
 * i*n+n-1 belong to connection i. */
struct slot {
    double since;
    uint32_t generation;
    bool busy;
};

static const char *transport = "tcp";
static int port = 5060, core_port = CORE_PORT, stream_count = 200, outstanding = 1;
static bool registers_once;
static double opens_since, opens_per_second = 1e9;
static struct stream *streams;
static struct slot *slots;
static uint32_t sequence;
static int opened, up, closed;
static bool input_ended;
static double time_now; /* of this turn of the loop */
static struct batch received, to_core_side;

/* -- transactions ----------------------------------------------------------------------------- */

static void begin(struct slot *slot) {
    static char message[LARGEST];
    static const char *const via[] = {"TCP", "TLS", "WS", "WSS"};
    slot->generation = ++sequence;
    slot->since = time_now;
    slot->busy = true;
    unsigned g = slot->generation, s = slot - slots, phone = s / outstanding;
    int size = sprintf(
        message,
        "REGISTER sip:example.com SIP/2.0\r\n"
        "Via: SIP/2.0/%s ua%06u.invalid;branch=z9hG4bK%08x%08x;rport\r\n"
        "Max-Forwards: 70\r\n"
        "From: \"User %06u\" <sip:u%06u@example.com>;tag=%08x\r\n"
        "To: \"User %06u\" <sip:u%06u@example.com>\r\n"
        "Call-ID: %08x-%08x@ua%06u.example.com\r\n"
        "CSeq: %u REGISTER\r\n"
        "Contact: <sip:u%06u@ua%06u.invalid;transport=%s;ob>"
        ";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-%012x>\";reg-id=1;expires=600\r\n"
        "Supported: path, outbound, gruu\r\n" ALLOW "User-Agent: streamgen/1.0 (loopback)\r\n"
        "Expires: 600\r\n" NO_BODY,
        via[2 * over_websocket + over_tls], phone, g, s, phone, phone, g, phone, phone, g, s, phone,
        (g & 0xffff) + 1, phone, phone, over_websocket ? "ws" : transport, phone);
    stream_put(&streams[phone], message, size);
}

static void unexpected(const char *where, const char *message) {
    if (!bad++)
        fprintf(stderr, "streamgen: unexpected at the %s:\n%.1200s\n", where, message);
}

/* The transaction that a message on this connection answers, NULL if there is none. */
static struct slot *slot_of(const struct stream *s, const char *message) {
    int size;
    unsigned generation, i;
    const char *id = value_of(message, "Call-ID", &size);
    const char *cseq = value_of(message, "CSeq", &size);
    if (!id || !cseq || sscanf(id, "%8x-%8x", &generation, &i) != 2 ||
        (int)(i / outstanding) != s - streams)
        return NULL;
    struct slot *slot = &slots[i];
    char expected[40];
    int length = sprintf(expected, "%u REGISTER", (generation & 0xffff) + 1);
    bool fits = slot->busy && slot->generation == generation && size == length;
    return fits && !memcmp(cseq, expected, length) ? slot : NULL;
}

static void on_answer(struct stream *s, const char *message) {
    if (!strncmp(message, "SIP/2.0 1", 9))
        return;
    struct slot *slot = slot_of(s, message);
    if (!slot || strncmp(message, "SIP/2.0 200", 11) || !has_token(message))
        unexpected("phone", message);
    else
        sample(time_now - slot->since);
    if (!slot)
        return;
    slot->busy = false;
    if (!registers_once)
        begin(slot);
}

static void give_up_old(void) {
    for (int i = 0; i < stream_count * outstanding; i++)
        if (slots[i].busy && time_now - slots[i].since > 2.0) {
            lost++;
            slots[i].busy = false;
            if (!registers_once) {
                struct stream *s = &streams[i / outstanding];
                begin(&slots[i]);
                stream_flush(s);
            }
        }
}

static bool all_over(void) {
    for (int i = 0; i < stream_count * outstanding; i++)
        if (slots[i].busy)
            return false;
    return true;
}

/* -- events ----------------------------------------------------------------------------------- */

/* What it can do now; false: it has ended. */
static bool serve(struct stream *s) {
    if (s->state < UP) {
        if (!stream_rise(s))
            return false;
        if (s->state < UP)
            return true;
        up++;
        struct slot *first = &slots[(s - streams) * outstanding];
        for (int i = 0; i < outstanding; i++)
            begin(&first[i]);
    }
    for (;;) {
        size_t before = s->in.size;
        if (!read_chunk(s))
            return false;
        bool more = s->in.size > before;
        if (!take_messages(s, on_answer))
            return false;
        if (!more)
            break;
    }
    return stream_flush(s);
}

static void serve_core(int fd) {
    int count;
    while ((count = batch_receive(&received, fd)) > 0) {
        for (int i = 0; i < count; i++) {
            const char *request = received.octets[i];
            if (strncmp(request, "REGISTER ", 9) || !has_token(request)) {
                unexpected("core", request);
                continue;
            }
            size_t size = write_binding(batch_next(&to_core_side), request);
            batch_add(&to_core_side, size, &received.address[i], 0);
        }
        batch_send(&to_core_side);
    }
}

/* One turn of the loop; false: a connection has ended that should not. */
static bool turn(int core_fd) {
    struct epoll_event events[128];
    double limit = 1 + (now() - opens_since) * opens_per_second;
    for (; opened < stream_count && opened < limit && opened - up - closed < RISING; opened++)
        stream_open(&streams[opened], opened, FIRST_PHONE + opened, port);
    int closed_before = closed;
    int count = epoll_wait(poll_fd, events, 128, opened < stream_count ? 1 : 20);
    time_now = now();
    for (int i = 0; i < count; i++) {
        uint32_t what = events[i].data.u32;
        if (what == CORE_EVENT) {
            serve_core(core_fd);
        } else if (what == INPUT_EVENT) {
            char octet;
            input_ended = read(0, &octet, 1) <= 0;
        } else if (streams[what].state != CLOSED && !serve(&streams[what])) {
            struct stream *s = &streams[what];
            if (!closed++)
                fprintf(stderr, "streamgen: connection %u ended %s; %d had come up\n%.*s\n", what,
                        s->state == UP ? "when it was up" : "on its way up", up, (int)s->in.size,
                        s->in.octets);
            stream_close(s);
        }
    }
    return closed == closed_before;
}

/* -- the run ---------------------------------------------------------------------------------- */

static void print_result(const char *name) {
    char extra[200];
    snprintf(extra, sizeof extra, ", \"connections\": %d, \"tls\": \"%s\"", up - closed, tls_name);
    report(name, time_now, extra);
}

static bool run_register(int core_fd, double seconds, double warm_up) {
    double since = time_now, checked = time_now;
    bool measuring = false;
    for (;;) {
        if (!turn(core_fd))
            return false;
        if (up < stream_count && time_now - since > 60) {
            fprintf(stderr, "streamgen: only %d of %d connected\n", up, stream_count);
            return false;
        }
        if (up < stream_count && !measuring)
            continue;
        if (!measuring && time_now - since >= warm_up) {
            measuring = true;
            since = time_now;
            begin_to_measure(time_now);
        } else if (measuring && time_now - since >= seconds) {
            print_result("register");
            break;
        }
        if (time_now - checked > 0.1) {
            checked = time_now;
            give_up_old();
        }
    }
    /* let what is outstanding end, so that nothing of it reaches the next run */
    registers_once = true;
    for (double until = now() + 1; !all_over() && now() < until;)
        turn(core_fd);
    return true;
}

static bool run_idle(int core_fd) {
    registers_once = true;
    begin_to_measure(time_now);
    for (double checked = time_now; up < stream_count || !all_over();) {
        if (!turn(core_fd))
            return false;
        if (time_now - checked > 0.1) {
            checked = time_now;
            give_up_old();
        }
    }
    print_result("idle");
    close(core_fd); /* all has been answered; another generator may need the address */
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = INPUT_EVENT};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &event);
    while (!input_ended)
        turn(core_fd);
    printf("{\"connections\": %d}\n", up - closed);
    return true;
}

static void read_options(int count, char **arguments, double *seconds, double *warm_up) {
    int option;
    while ((option = getopt(count, arguments, "t:p:c:n:r:s:w:P:R:")) != -1) {
        if (option == 't')
            transport = optarg;
        else if (option == 'p')
            port = atoi(optarg);
        else if (option == 'c')
            stream_count = atoi(optarg);
        else if (option == 'n')
            outstanding = atoi(optarg);
        else if (option == 'r')
            opens_per_second = atof(optarg);
        else if (option == 's')
            *seconds = atof(optarg);
        else if (option == 'w')
            *warm_up = atof(optarg);
        else if (option == 'P')
            watch(optarg);
        else if (option == 'R')
            core_port = atoi(optarg);
        else
            exit(2);
    }
    over_tls = !strcmp(transport, "tls") || !strcmp(transport, "wss");
    over_websocket = !strcmp(transport, "ws") || !strcmp(transport, "wss");
    if (!over_tls && !over_websocket && strcmp(transport, "tcp")) {
        fprintf(stderr, "streamgen: -t is tcp, tls, ws or wss\n");
        exit(2);
    }
    if (stream_count < 1 || stream_count > 65000 || outstanding < 1 || outstanding > 1000) {
        fprintf(stderr, "streamgen: -c is 1..65000, -n is 1..1000\n");
        exit(2);
    }
}

int main(int count, char **arguments) {
    double seconds = 5, warm_up = 0.5;
    const char *name = count > 1 ? arguments[1] : "";
    bool idle = !strcmp(name, "idle");
    if (!idle && strcmp(name, "register")) {
        fprintf(stderr, "usage: streamgen register|idle [options]; see the top of streamgen.c\n");
        return 2;
    }
    if (idle)
        opens_per_second = 1000;
    read_options(count - 1, arguments + 1, &seconds, &warm_up);
    if (over_tls)
        tls_begin();
    int core_fd = open_socket(LOOPBACK, core_port);
    batch_init(&received, -1);
    batch_init(&to_core_side, core_fd);
    poll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = CORE_EVENT};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, core_fd, &event);
    streams = calloc(stream_count, sizeof *streams);
    slots = calloc((size_t)stream_count * outstanding, sizeof *slots);
    latency = malloc(MAX_SAMPLES * sizeof *latency);
    sequence = (uint32_t)time(NULL) * 2654435761u; /* branches differ from those of the last run */
    time_now = opens_since = now();
    return (idle ? run_idle(core_fd) : run_register(core_fd, seconds, warm_up)) ? 0 : 1;
}
