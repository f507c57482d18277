/*
 * streams.h: connections over TCP, TLS, WebSocket and secure WebSocket, none of which ever blocks.
 *
 * Every connection has a local address of its own.  All are in one edge-triggered epoll: whoever is
 * told of one reads until there is no more, and writes what it could not write before.
 */
#ifndef STREAMS_H
#define STREAMS_H
#include "measure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { CHUNK = 1 << 16, LARGEST_FRAME = 0xffff };
enum state { CONNECTING, TLS_HANDSHAKE, UPGRADE, UP, CLOSED };

struct buffer {
    char *octets;
    size_t size, room;
};

struct stream {
    int fd;
    enum state state;
    SSL *ssl;
    struct buffer in, out;
};

static bool over_tls, over_websocket;
static SSL_CTX *tls;
static int poll_fd;
static char tls_name[64]; /* version and cipher of the first connection */

/* -- octets ----------------------------------------------------------------------------------- */

/* Room for that many octets more at the end. */
static char *buffer_end(struct buffer *b, size_t wanted) {
    if (b->size + wanted > b->room) {
        b->room = b->size + wanted + 1024;
        b->octets = realloc(b->octets, b->room);
    }
    return b->octets + b->size;
}

static void buffer_drop(struct buffer *b, size_t size) {
    b->size -= size;
    if (size && b->size)
        memmove(b->octets, b->octets + size, b->size);
}

/* -1: closed or broken; 0: it must wait; else how much */
static int tls_result(struct stream *s, int result) {
    if (result > 0)
        return result;
    int error = SSL_get_error(s->ssl, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static int plain_result(int result) {
    if (result > 0)
        return result;
    return result < 0 && errno == EAGAIN ? 0 : -1;
}

static int stream_read(struct stream *s, char *to, int room) {
    ERR_clear_error();
    return s->ssl ? tls_result(s, SSL_read(s->ssl, to, room)) : plain_result(read(s->fd, to, room));
}

/* Write what there is to write; the rest waits for epoll.  False: closed. */
static bool stream_flush(struct stream *s) {
    while (s->out.size) {
        ERR_clear_error();
        int sent = s->ssl ? tls_result(s, SSL_write(s->ssl, s->out.octets, s->out.size))
                          : plain_result(send(s->fd, s->out.octets, s->out.size, MSG_NOSIGNAL));
        if (sent <= 0)
            return sent == 0;
        buffer_drop(&s->out, sent);
    }
    return true;
}

/* -- messages and frames ---------------------------------------------------------------------- */

/* One frame, masked as a client's must be (RFC 6455 section 5.3). */
static void put_frame(struct stream *s, int opcode, const char *octets, size_t size) {
    static uint32_t mask = 2463534242u;
    mask ^= mask << 13, mask ^= mask >> 17, mask ^= mask << 5;
    unsigned char *out = (unsigned char *)buffer_end(&s->out, size + 8), *at = out;
    *at++ = 0x80 | opcode;
    if (size < 126) {
        *at++ = 0x80 | size;
    } else {
        *at++ = 0x80 | 126;
        *at++ = size >> 8;
        *at++ = size;
    }
    const unsigned char *key = memcpy(at, &mask, 4);
    at += 4;
    for (size_t i = 0; i < size; i++)
        at[i] = octets[i] ^ key[i & 3];
    s->out.size += at + size - out;
}

/* A SIP message leaves with the next stream_flush(). */
static void stream_put(struct stream *s, const char *message, size_t size) {
    if (over_websocket) {
        put_frame(s, 1, message, size);
    } else {
        memcpy(buffer_end(&s->out, size), message, size);
        s->out.size += size;
    }
}

/* The size of the SIP message at the start, 0 if it is not whole. */
static size_t message_size(const char *octets, size_t size) {
    const char *end = memmem(octets, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t head = end + 4 - octets, body = 0;
    const char *length = memmem(octets, head, "\r\nContent-Length:", 17);
    if (length)
        body = strtoul(length + 17, NULL, 10);
    return head + body <= size ? head + body : 0;
}

/* The payload of the frame at the start; returns the size of the frame, 0 if it is not whole, -1 if
 * no server may send it. */
static long frame_at(const char *octets, size_t size, const char **payload, size_t *length) {
    const unsigned char *f = (const unsigned char *)octets;
    if (size < 2)
        return 0;
    if ((f[0] & 0xf0) != 0x80 || f[1] & 0x80 || f[1] == 127)
        return -1; /* a fragment, an extension, masked, or longer than any answer */
    size_t head = f[1] < 126 ? 2 : 4;
    if (size < head)
        return 0;
    *length = f[1] < 126 ? f[1] : (size_t)f[2] << 8 | f[3];
    *payload = octets + head;
    return head + *length <= size ? (long)(head + *length) : 0;
}

/* Hand every whole message in `s->in` to `take`, as a string that ends in 0; false: closed. */
static bool take_messages(struct stream *s, void (*take)(struct stream *, const char *)) {
    static char message[LARGEST_FRAME + 1];
    size_t at = 0;
    for (;;) {
        const char *octets = s->in.octets + at, *payload = octets;
        size_t rest = s->in.size - at, length = 0;
        int opcode = 1;
        long whole;
        if (over_websocket) {
            whole = frame_at(octets, rest, &payload, &length);
            opcode = rest ? octets[0] & 0xf : 0;
        } else {
            whole = length = message_size(octets, rest);
        }
        if (whole < 0 || opcode == 8 || length > LARGEST_FRAME)
            return false;
        if (whole == 0)
            break;
        at += whole;
        if (opcode == 9) {
            put_frame(s, 10, payload, length);
        } else if (opcode < 3) {
            memcpy(message, payload, length);
            message[length] = 0;
            take(s, message);
        }
    }
    buffer_drop(&s->in, at);
    return true;
}

/* -- the way up ------------------------------------------------------------------------------- */

static void tls_begin(void) {
    tls = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(tls, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    /* the same for every device: what is compared is not the cipher */
    SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(tls, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set1_groups_list(tls, "P-256");
}

static void stream_open(struct stream *s, uint32_t index, uint32_t from, int port) {
    int one = 1;
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(from)};
    struct sockaddr_in device = {.sin_family = AF_INET,
                                 .sin_port = htons(port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&local, sizeof local) ||
        (connect(s->fd, (struct sockaddr *)&device, sizeof device) && errno != EINPROGRESS)) {
        perror("streamgen: connect");
        exit(1);
    }
    if (over_tls) {
        s->ssl = SSL_new(tls);
        SSL_set_fd(s->ssl, s->fd);
        SSL_set_connect_state(s->ssl);
        SSL_set_tlsext_host_name(s->ssl, "edge.example.com");
    }
    s->state = CONNECTING;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.u32 = index};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, s->fd, &event);
}

static void stream_close(struct stream *s) {
    s->state = CLOSED;
    if (s->ssl)
        SSL_free(s->ssl);
    close(s->fd);
    free(s->in.octets);
    free(s->out.octets);
    memset(&s->in, 0, sizeof s->in);
    memset(&s->out, 0, sizeof s->out);
}

/* The HTTP answer says what RFC 6455 section 4.1 and RFC 7118 section 4 want; it ends at `end`. */
static bool is_websocket(char *answer, char *end) {
    end[-1] = 0; /* it keeps the CR of its last row */
    return !strncmp(answer, "HTTP/1.1 101 ", 13) &&
           strcasestr(answer, "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r") &&
           strcasestr(answer, "\r\nSec-WebSocket-Protocol: sip\r");
}

static const char UPGRADE_REQUEST[] =
    "GET / HTTP/1.1\r\nHost: edge.example.com\r\nOrigin: https://phone.example.com\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n\r\n";

static bool read_chunk(struct stream *s) {
    int got = stream_read(s, buffer_end(&s->in, CHUNK), CHUNK);
    if (got > 0)
        s->in.size += got;
    return got >= 0;
}

/* Take the next steps towards UP; false: it failed. */
static bool stream_rise(struct stream *s) {
    if (s->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            return false;
        s->state = over_tls ? TLS_HANDSHAKE : UPGRADE;
    }
    if (s->state == TLS_HANDSHAKE) {
        ERR_clear_error();
        int result = tls_result(s, SSL_do_handshake(s->ssl));
        if (result <= 0)
            return result == 0;
        if (!*tls_name)
            snprintf(tls_name, sizeof tls_name, "%s %s", SSL_get_version(s->ssl),
                     SSL_get_cipher_name(s->ssl));
        s->state = UPGRADE;
    }
    if (!over_websocket) {
        s->state = UP;
        return true;
    }
    if (!s->in.room) { /* nothing asked yet, so nothing read */
        size_t size = sizeof UPGRADE_REQUEST - 1;
        memcpy(buffer_end(&s->out, size), UPGRADE_REQUEST, size);
        s->out.size += size;
    }
    if (!stream_flush(s) || !read_chunk(s))
        return false;
    char *end = s->in.size ? memmem(s->in.octets, s->in.size, "\r\n\r\n", 4) : NULL;
    if (!end)
        return true;
    end += 4;
    if (!is_websocket(s->in.octets, end - 2))
        return false;
    buffer_drop(&s->in, end - s->in.octets);
    s->state = UP;
    return true;
}

#endif
