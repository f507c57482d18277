/*
 * messages.h: as much of SIP as the generators need to write, find and copy rows of headers.
 */
#ifndef MESSAGES_H
#define MESSAGES_H
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define ALLOW "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY, REFER, MESSAGE, UPDATE, PRACK\r\n"
#define NO_BODY "Content-Length: 0\r\n\r\n"

/* The value of the first row of that name, NULL if there is none. */
static const char *value_of(const char *message, const char *name, int *size) {
    char key[40];
    int length = snprintf(key, sizeof key, "\r\n%s: ", name);
    const char *at = strstr(message, key);
    if (!at)
        return NULL;
    at += length;
    *size = strstr(at, "\r\n") - at;
    return at;
}

/* All rows of that name; returns the new end of `out`. */
static char *copy_rows(char *out, const char *message, const char *name) {
    size_t length = strlen(name);
    for (const char *row = strstr(message, "\r\n") + 2; *row != '\r';) {
        const char *end = strstr(row, "\r\n") + 2;
        if (!strncasecmp(row, name, length) && row[length] == ':') {
            memcpy(out, row, end - row);
            out += end - row;
        }
        row = end;
    }
    return out;
}

/* A Path with a user part: the flow token. */
static bool has_token(const char *message) {
    int size;
    const char *path = value_of(message, "Path", &size);
    return path && memchr(path, '@', size);
}

/* The registrar's 200; returns its size. */
static size_t write_binding(char *start, const char *request) {
    char *out = start;
    out += sprintf(out, "SIP/2.0 200 OK\r\n");
    out = copy_rows(out, request, "Via");
    out = copy_rows(out, request, "From");
    out = copy_rows(out, request, "To");
    out += sprintf(out - 2, ";tag=reg1\r\n") - 2;
    out = copy_rows(out, request, "Call-ID");
    out = copy_rows(out, request, "CSeq");
    out = copy_rows(out, request, "Contact");
    out = copy_rows(out, request, "Path");
    out += sprintf(out, "Require: outbound\r\nSupported: path, outbound, gruu\r\n" NO_BODY);
    return out - start;
}

#endif
