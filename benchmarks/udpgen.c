/*
 * udpgen: closed-loop SIP load over UDP; phones on one side, a registrar and a caller on the other.
 *
 *     udpgen register [options]   REGISTERs through the edge to our registrar on 127.0.0.1:5090
 *     udpgen call [options]       INVITE, 180, 200, ACK, BYE, 200 from the core through the edge
 *     udpgen save [options]       REGISTERs that the device itself answers
 *
 *     -p PORT   of the device on 127.0.0.1 (5060)      -s SECONDS  to measure (5)
 *     -n N      transactions outstanding (32)          -w SECONDS  before that (0.5)
 *     -f N      phones (10000)                         -P PID,...  whose CPU time is measured
 *
 * N transactions are outstanding all the time: when one ends, the next begins.  One that has not
 * ended after a second is lost; nothing is retransmitted, so a loss shows as a loss.  Each phone has
 * an address of its own (127.1.x.y), all on one socket.  Every message that arrives is checked (see
 * on_phone, on_core): what should not have come counts as bad, and the first is printed.  When the
 * time is over, what is outstanding may end, so that nothing of it reaches the next run.  Prints one
 * line of JSON.
 */
#include "datagrams.h"
#include "messages.h"

#include <poll.h>

enum { SLOTS = 4096, PHONE_PORT = 5070 };
enum job { REGISTER, CALL, SAVE };

static const char SDP[] =
    "v=0\r\no=alice 2890844526 2890844526 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\n"
    "t=0 0\r\nm=audio 49170 RTP/AVP 0 8 97 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
    "a=rtpmap:97 iLBC/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n"
    "a=ptime:20\r\na=sendrecv\r\n";

#define AGENT "User-Agent: udpgen/1.0 (loopback)\r\n"

static struct batch received, to_phone_side, to_core_side;

/* -- transactions ----------------------------------------------------------------------------- */

/* A Call-ID begins with generation and slot, so that every message finds its transaction. */
struct slot {
    double since;
    uint32_t generation;
    bool busy;
};

static enum job job;
static bool registering; /* the first phase of a call run: the core learns the phones' Paths */
static int outstanding = 32, phones = 10000, port = 5060;
static struct sockaddr_in device;
static struct slot slots[SLOTS];
static int idle[SLOTS], idle_count;
static uint32_t sequence;
static char **paths; /* by phone */
static int registered, next_phone;

static struct slot *slot_of(const char *message) {
    const char *at = strstr(message, "\r\nCall-ID: ");
    unsigned generation, i;
    if (!at || sscanf(at + 11, "%8x-%8x", &generation, &i) != 2 || i >= SLOTS)
        return NULL;
    return slots[i].busy && slots[i].generation == generation ? &slots[i] : NULL;
}

static void release(struct slot *slot) {
    slot->busy = false;
    idle[idle_count++] = slot - slots;
}

static void finished(struct slot *slot, double at) {
    sample(at - slot->since);
    release(slot);
}

static void unexpected(const char *where, const char *message) {
    if (!bad++)
        fprintf(stderr, "udpgen: unexpected at the %s:\n%.1200s\n", where, message);
    struct slot *slot = strncmp(message, "SIP/2.0 ", 8) ? NULL : slot_of(message);
    if (slot)
        release(slot);
}

/* -- messages --------------------------------------------------------------------------------- */

static void send_register(struct slot *slot, int phone) {
    char *out = batch_next(&to_phone_side);
    unsigned g = slot->generation, s = slot - slots;
    int size = sprintf(
        out,
        "REGISTER sip:example.com SIP/2.0\r\n"
        "Via: SIP/2.0/UDP 127.0.0.1:5999;branch=z9hG4bK%08x%08x;rport\r\n"
        "Max-Forwards: 70\r\n"
        "From: \"User %06u\" <sip:u%06u@example.com>;tag=%08x\r\n"
        "To: \"User %06u\" <sip:u%06u@example.com>\r\n"
        "Call-ID: %08x-%08x@ua%06u.example.com\r\n"
        "CSeq: %u REGISTER\r\n"
        "Contact: <sip:u%06u@127.0.0.1:5999;ob>"
        ";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-%012x>\";reg-id=1;expires=600\r\n"
        "Supported: path, outbound, gruu\r\n" ALLOW AGENT "Expires: 600\r\n" NO_BODY,
        g, s, phone, phone, g, phone, phone, g, s, phone, (g & 0xffff) + 1, phone, phone);
    batch_add(&to_phone_side, size, &device, FIRST_PHONE + phone);
}

static void send_invite(struct slot *slot, int phone) {
    char *out = batch_next(&to_core_side);
    unsigned g = slot->generation, s = slot - slots;
    int size = sprintf(
        out,
        "INVITE sip:u%06u@127.0.0.1:5999;ob SIP/2.0\r\n"
        "Via: SIP/2.0/UDP 127.0.0.1:5090;branch=z9hG4bK%08x%08xi\r\n"
        "Route: %s\r\n"
        "Max-Forwards: 69\r\n"
        "From: \"Caller\" <sip:caller@example.com>;tag=%08x\r\n"
        "To: <sip:u%06u@example.com>\r\n"
        "Call-ID: %08x-%08x@core.example.com\r\n"
        "CSeq: 1 INVITE\r\n"
        "Contact: <sip:caller@127.0.0.1:5090>\r\n"
        "Supported: path, outbound, gruu, timer\r\n" ALLOW AGENT
        "Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
        phone, g, s, paths[phone], g, phone, g, s, (int)sizeof SDP - 1, SDP);
    batch_add(&to_core_side, size, &device, 0);
}

/* A phone answers INVITE with 180 and 200, BYE with 200. */
static void phone_answers(const char *request, int i, uint32_t me) {
    bool invite = request[0] == 'I';
    for (int final = invite ? 0 : 1; final < 2; final++) {
        char *start = batch_next(&to_phone_side), *out = start;
        out += sprintf(out, final ? "SIP/2.0 200 OK\r\n" : "SIP/2.0 180 Ringing\r\n");
        out = copy_rows(out, request, "Via");
        if (invite)
            out = copy_rows(out, request, "Record-Route");
        out = copy_rows(out, request, "From");
        out = copy_rows(out, request, "To");
        if (invite)
            out += sprintf(out - 2, ";tag=ua1\r\n") - 2;
        out = copy_rows(out, request, "Call-ID");
        out = copy_rows(out, request, "CSeq");
        if (invite)
            out += sprintf(out, "Contact: <sip:u%06u@127.0.0.1:5999;ob>\r\n", me - FIRST_PHONE);
        if (invite && final)
            out += sprintf(out, "Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
                           (int)sizeof SDP - 1, SDP);
        else
            out += sprintf(out, NO_BODY);
        batch_add(&to_phone_side, out - start, &received.address[i], me);
    }
}

/* The registrar answers 200 and, in the first phase of a call run, keeps the Path. */
static void core_registers(const char *request, int i) {
    size_t answer = write_binding(batch_next(&to_core_side), request);
    batch_add(&to_core_side, answer, &received.address[i], 0);
    if (registering) {
        int size, phone = atoi(strstr(request, "From: \"User ") + 12);
        const char *path = value_of(request, "Path", &size);
        if (path && phone >= 0 && phone < phones && !paths[phone])
            paths[phone] = strndup(path, size);
    }
}

/* The caller acknowledges the 200 to its INVITE and hangs up at once. */
static void core_hangs_up(const char *answer, struct slot *slot) {
    int route_size = 0, from_size = 0, to_size = 0, id_size = 0, contact_size = 0;
    const char *route = value_of(answer, "Record-Route", &route_size);
    const char *from = value_of(answer, "From", &from_size);
    const char *to = value_of(answer, "To", &to_size);
    const char *id = value_of(answer, "Call-ID", &id_size);
    const char *contact = value_of(answer, "Contact", &contact_size);
    if (!route || !from || !to || !id || !contact) {
        unexpected("core", answer);
        return;
    }
    for (int bye = 0; bye < 2; bye++) {
        char *out = batch_next(&to_core_side);
        int size = sprintf(out,
                           "%s %.*s SIP/2.0\r\n"
                           "Via: SIP/2.0/UDP 127.0.0.1:5090;branch=z9hG4bK%08x%08x%c\r\n"
                           "Route: %.*s\r\nMax-Forwards: 69\r\nFrom: %.*s\r\nTo: %.*s\r\n"
                           "Call-ID: %.*s\r\nCSeq: %d %s\r\n" NO_BODY,
                           bye ? "BYE" : "ACK", contact_size - 2, contact + 1, slot->generation,
                           (unsigned)(slot - slots), bye ? 'b' : 'a', route_size, route, from_size,
                           from, to_size, to, id_size, id, 1 + bye, bye ? "BYE" : "ACK");
        batch_add(&to_core_side, size, &device, 0);
    }
}

/* -- what arrives ----------------------------------------------------------------------------- */

static void on_phone(const char *message, int i, double at) {
    if (!strncmp(message, "SIP/2.0 1", 9))
        return;
    if (!strncmp(message, "SIP/2.0 200", 11)) {
        struct slot *slot = slot_of(message);
        if (!slot || (job != SAVE && !has_token(message))) {
            unexpected("phone", message);
            return;
        }
        registered++;
        finished(slot, at);
        return;
    }
    bool ack = !strncmp(message, "ACK ", 4);
    if (!ack && strncmp(message, "INVITE ", 7) && strncmp(message, "BYE ", 4)) {
        unexpected("phone", message);
        return;
    }
    /* delivered over the flow of the very phone that it is for? */
    const char *user = strstr(message, " sip:u");
    uint32_t me = arrived_at(&received, i);
    if (!user || FIRST_PHONE + (uint32_t)atoi(user + 6) != me)
        unexpected("phone", message);
    else if (!ack)
        phone_answers(message, i, me);
}

static void on_core(const char *message, int i, double at) {
    if (!strncmp(message, "REGISTER ", 9)) {
        if (has_token(message))
            core_registers(message, i);
        else
            unexpected("core", message);
        return;
    }
    if (!strncmp(message, "SIP/2.0 1", 9))
        return;
    struct slot *slot = strncmp(message, "SIP/2.0 200", 11) ? NULL : slot_of(message);
    if (!slot) {
        unexpected("core", message);
        return;
    }
    int size;
    const char *cseq = value_of(message, "CSeq", &size);
    if (cseq && memmem(cseq, size, "INVITE", 6))
        core_hangs_up(message, slot);
    else
        finished(slot, at);
}

/* -- the run ---------------------------------------------------------------------------------- */

static void start_transactions(double at) {
    while (idle_count && (!registering || next_phone < phones)) {
        struct slot *slot = &slots[idle[--idle_count]];
        slot->generation = ++sequence;
        slot->since = at;
        slot->busy = true;
        int phone = registering ? next_phone++ : (int)(slot->generation % phones);
        if (job == CALL && !registering)
            send_invite(slot, phone);
        else
            send_register(slot, phone);
    }
    batch_send(&to_phone_side);
    batch_send(&to_core_side);
}

static void give_up_old(double at) {
    for (int i = 0; i < outstanding; i++)
        if (slots[i].busy && at - slots[i].since > 1.0) {
            lost++;
            release(&slots[i]);
        }
}

static bool receive_all(int phone_fd, int core_fd) {
    bool any = false;
    int count;
    while ((count = batch_receive(&received, phone_fd)) > 0) {
        any = true;
        double at = now();
        for (int i = 0; i < count; i++)
            on_phone(received.octets[i], i, at);
        batch_send(&to_phone_side);
    }
    while ((count = batch_receive(&received, core_fd)) > 0) {
        any = true;
        double at = now();
        for (int i = 0; i < count; i++)
            on_core(received.octets[i], i, at);
        batch_send(&to_core_side);
    }
    return any;
}

static void read_options(int count, char **arguments, double *seconds, double *warm_up) {
    int option;
    while ((option = getopt(count, arguments, "p:n:f:s:w:P:")) != -1) {
        if (option == 'p')
            port = atoi(optarg);
        else if (option == 'n')
            outstanding = atoi(optarg);
        else if (option == 'f')
            phones = atoi(optarg);
        else if (option == 's')
            *seconds = atof(optarg);
        else if (option == 'w')
            *warm_up = atof(optarg);
        else if (option == 'P')
            watch(optarg);
        else
            exit(2);
    }
    if (outstanding < 1 || outstanding > SLOTS || phones < 1 || phones > 65000) {
        fprintf(stderr, "udpgen: -n is 1..%d, -f is 1..65000\n", SLOTS);
        exit(2);
    }
}

/* Let what is outstanding end. */
static void finish(struct pollfd *waiting) {
    double until = now() + 0.5;
    while (idle_count < outstanding && now() < until)
        if (!receive_all(waiting[0].fd, waiting[1].fd))
            poll(waiting, 2, 20);
}

/* Measure for `seconds` after `warm_up`; false if not all phones could register before that. */
static bool run(struct pollfd *waiting, const char *name, double seconds, double warm_up) {
    double begin = now(), checked = begin;
    bool measuring = false;
    for (;;) {
        double at = now();
        if (registering && registered >= phones) {
            registering = false;
            begin = at;
        } else if (registering && at - begin > 20) {
            fprintf(stderr, "udpgen: only %d of %d phones could register\n", registered, phones);
            return false;
        } else if (!registering && !measuring && at - begin >= warm_up) {
            measuring = true;
            begin = at;
            begin_to_measure(at);
        } else if (measuring && at - begin >= seconds) {
            report(name, at, "");
            finish(waiting);
            return true;
        }
        if (at - checked > 0.1) {
            checked = at;
            give_up_old(at);
        }
        start_transactions(at);
        if (!receive_all(waiting[0].fd, waiting[1].fd))
            poll(waiting, 2, 20);
    }
}

int main(int count, char **arguments) {
    static const char *const names[] = {"register", "call", "save"};
    double seconds = 5, warm_up = 0.5;
    const char *name = count > 1 ? arguments[1] : "";
    for (job = REGISTER; job <= SAVE && strcmp(name, names[job]); job++)
        ;
    if (job > SAVE) {
        fprintf(stderr, "usage: udpgen register|call|save [options]; see the top of udpgen.c\n");
        return 2;
    }
    read_options(count - 1, arguments + 1, &seconds, &warm_up);
    device = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(LOOPBACK)};
    int phone_fd = open_socket(0, PHONE_PORT), core_fd = open_socket(LOOPBACK, CORE_PORT);
    struct pollfd waiting[] = {{phone_fd, POLLIN, 0}, {core_fd, POLLIN, 0}};
    batch_init(&received, -1);
    batch_init(&to_phone_side, phone_fd);
    batch_init(&to_core_side, core_fd);
    paths = calloc(phones, sizeof *paths);
    latency = malloc(MAX_SAMPLES * sizeof *latency);
    for (int i = 0; i < outstanding; i++)
        idle[idle_count++] = i;
    sequence = (uint32_t)time(NULL) * 2654435761u; /* branches differ from those of the last run */
    registering = job == CALL;
    return run(waiting, name, seconds, warm_up) ? 0 : 1;
}
