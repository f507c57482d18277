/*
 * datagrams.h: UDP in batches.  sendmmsg and recvmmsg keep the generator quicker than any device;
 * IP_PKTINFO gives every phone its own address on one socket.
 */
#ifndef DATAGRAMS_H
#define DATAGRAMS_H
#include "measure.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <sys/socket.h>

enum { BATCH = 32, LARGEST = 4096 };
enum { LOOPBACK = 0x7f000001, FIRST_PHONE = 0x7f010000, CORE_PORT = 5090 };

struct batch {
    int fd, count;
    struct mmsghdr header[BATCH];
    struct iovec vector[BATCH];
    struct sockaddr_in address[BATCH];
    char octets[BATCH][LARGEST];
    char control[BATCH][64];
};

static int open_socket(uint32_t address, int port) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), buffer = 4 << 20, one = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    struct sockaddr_in name = {.sin_family = AF_INET,
                               .sin_port = htons(port),
                               .sin_addr.s_addr = htonl(address)};
    if (bind(fd, (struct sockaddr *)&name, sizeof name)) {
        perror("generator: bind");
        exit(1);
    }
    setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
    return fd;
}

static void batch_init(struct batch *b, int fd) {
    memset(b, 0, sizeof *b);
    b->fd = fd;
    for (int i = 0; i < BATCH; i++) {
        struct msghdr *m = &b->header[i].msg_hdr;
        b->vector[i].iov_base = b->octets[i];
        m->msg_iov = &b->vector[i];
        m->msg_iovlen = 1;
        m->msg_name = &b->address[i];
        m->msg_namelen = sizeof b->address[i];
    }
}

/* What waits on a socket, as strings that end in 0. */
static int batch_receive(struct batch *b, int fd) {
    for (int i = 0; i < BATCH; i++) {
        struct msghdr *m = &b->header[i].msg_hdr;
        b->vector[i].iov_len = LARGEST - 1;
        m->msg_namelen = sizeof b->address[i];
        m->msg_control = b->control[i];
        m->msg_controllen = sizeof b->control[i];
    }
    int count = recvmmsg(fd, b->header, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++)
        b->octets[i][b->header[i].msg_len] = 0;
    return count < 0 ? 0 : count;
}

static void batch_send(struct batch *b) {
    for (int at = 0; at < b->count;) {
        int sent = sendmmsg(b->fd, b->header + at, b->count - at, 0);
        if (sent <= 0) {
            perror("generator: sendmmsg");
            exit(1);
        }
        at += sent;
    }
    b->count = 0;
}

static char *batch_next(struct batch *b) { return b->octets[b->count]; }

/* The octets at batch_next() go to an address, from a local address if that is not 0. */
static void batch_add(struct batch *b, size_t size, const struct sockaddr_in *to, uint32_t from) {
    int i = b->count++;
    struct msghdr *m = &b->header[i].msg_hdr;
    b->vector[i].iov_len = size;
    b->address[i] = *to;
    m->msg_control = NULL;
    m->msg_controllen = 0;
    if (from) {
        struct cmsghdr *c = (struct cmsghdr *)b->control[i];
        struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(from)};
        c->cmsg_level = IPPROTO_IP;
        c->cmsg_type = IP_PKTINFO;
        c->cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(c), &info, sizeof info);
        m->msg_control = c;
        m->msg_controllen = CMSG_SPACE(sizeof info);
    }
    if (b->count == BATCH)
        batch_send(b);
}

/* The local address that datagram i was sent to. */
static inline uint32_t arrived_at(struct batch *b, int i) {
    struct msghdr *m = &b->header[i].msg_hdr;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            return ntohl(info.ipi_addr.s_addr);
        }
    return 0;
}

#endif
