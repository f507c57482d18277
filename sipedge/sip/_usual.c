/*
 * Stop 3: the head that nearly all stacks send, read in C: what the regular expressions and the
 * string methods of usual.py do, for the optional compiled build.
 *
 * Strategy: one pass from row to row.  Everything that reads takes a pointer and the end of what it
 * may read, and returns where it stopped, NULL if the text is not in the usual shape; nothing is
 * ever read at or beyond the end, and nothing is copied before all was checked.  It accepts exactly
 * what usual.py accepts and returns the same values: a test and a fuzz harness hold the two
 * together.  What it does not accept is read by strict.py.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef const unsigned char *at_t;

enum { MAX_ROWS_LIMIT = 1024, KNOWN_NAMES = 512, LONGEST_NAME = 23 };

/* -- classes of octets ------------------------------------------------------------------------- */

enum {
    TOKEN = 1 << 0,      /* RFC 3261 §25.1 */
    DIGIT = 1 << 1,
    USER = 1 << 2,       /* of a Request-URI, without escapes and password */
    HOST = 1 << 3,       /* of a Request-URI: letters, digits, dot, hyphen */
    URI_PARAM = 1 << 4,  /* what stands behind the semicolons of a Request-URI */
    V6 = 1 << 5,         /* between the brackets of an IPv6 address */
    SCHEME = 1 << 6,     /* after its first letter */
    ALPHA = 1 << 7,
    VISIBLE = 1 << 8,    /* no control character, no SP */
    LOWER = 1 << 9,
    UPPER = 1 << 10,
};

static uint16_t class_of[256];

static void
mark(const char *octets, int bit)
{
    for (; *octets; octets++)
        class_of[(unsigned char)*octets] |= (uint16_t)bit;
}

static void
fill_classes(void)
{
    for (int c = 0; c < 256; c++) {
        bool upper = c >= 'A' && c <= 'Z', lower = c >= 'a' && c <= 'z';
        bool digit = c >= '0' && c <= '9';
        class_of[c] = 0;
        if (upper || lower || digit)
            class_of[c] |= TOKEN | USER | HOST | URI_PARAM | SCHEME;
        if (upper || lower)
            class_of[c] |= ALPHA;
        if (upper)
            class_of[c] |= UPPER;
        if (lower)
            class_of[c] |= LOWER;
        if (digit)
            class_of[c] |= DIGIT;
        if (c > ' ' && c != 0x7f)
            class_of[c] |= VISIBLE;
    }
    mark("-.!%*_+`'~", TOKEN);
    mark("-_.!~*'()&=+$,;/#", USER);
    mark(".-", HOST);
    mark("-_.!~*'()[]/:&+$=", URI_PARAM);
    mark("0123456789ABCDEFabcdef:.", V6);
    mark("+.-", SCHEME);
}

static inline bool
is(at_t at, at_t end, int classes)
{
    return at < end && class_of[*at] & classes;
}

static inline bool
is_octet(at_t at, at_t end, unsigned char octet)
{
    return at < end && *at == octet;
}

static inline at_t
run(at_t at, at_t end, int classes)
{
    while (is(at, end, classes))
        at++;
    return at;
}

static inline bool
begins(at_t at, at_t end, const char *text, Py_ssize_t size)
{
    return end - at >= size && memcmp(at, text, (size_t)size) == 0;
}
#define BEGINS(at, end, text) begins(at, end, text, (Py_ssize_t)sizeof(text) - 1)

static inline at_t
find(at_t at, at_t end, int octet)
{
    return at < end ? memchr(at, octet, (size_t)(end - at)) : NULL;
}

/* -- pieces of the grammar: usual.py has each of them under the same name ------------------------ */

/* 1 to 9999 without leading zeros, or five digits that begin with 1 to 5 */
static at_t
port(at_t at, at_t end)
{
    at_t stop = run(at, end, DIGIT);
    Py_ssize_t digits = stop - at;
    if (digits < 1 || digits > 5 || *at == '0' || (digits == 5 && *at > '5'))
        return NULL;
    return stop;
}

static at_t
quoted(at_t at, at_t end)
{
    if (!is_octet(at, end, '"'))
        return NULL;
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\')
            return NULL;
    return at < end ? at + 1 : NULL;
}

/* "[" V6 "]" */
static at_t
bracketed(at_t at, at_t end)
{
    at_t stop = run(at + 1, end, V6);
    return stop > at + 1 && is_octet(stop, end, ']') ? stop + 1 : NULL;
}

/* display name, and a URI in angle brackets */
static at_t
address(at_t at, at_t end)
{
    if (is_octet(at, end, '"')) {
        at = quoted(at, end);
        if (at == NULL)
            return NULL;
        if (is_octet(at, end, ' '))
            at++;
    } else {
        while (at < end && (class_of[*at] & TOKEN || *at == ' '))
            at++;
    }
    if (!is_octet(at, end, '<') || !is(at + 1, end, ALPHA))
        return NULL;
    at = run(at + 2, end, SCHEME);
    if (!is_octet(at, end, ':'))
        return NULL;
    at_t first = ++at;
    while (is(at, end, VISIBLE) && *at != '"' && *at != '<' && *at != '>')
        at++;
    return at > first && is_octet(at, end, '>') ? at + 1 : NULL;
}

/* name, or name=token, or name="quoted" */
static at_t
param(at_t at, at_t end)
{
    at_t stop = run(at, end, TOKEN);
    if (stop == at)
        return NULL;
    if (!is_octet(stop, end, '='))
        return stop;
    stop++;
    return is_octet(stop, end, '"') ? quoted(stop, end) : run(stop, end, TOKEN);
}

/* addresses with parameters, separated by commas */
static bool
listed(at_t at, at_t end)
{
    for (;;) {
        at = address(at, end);
        while (at != NULL && is_octet(at, end, ';'))
            at = param(at + 1, end);
        if (at == NULL)
            return false;
        if (at == end)
            return true;
        if (*at++ != ',')
            return false;
        if (is_octet(at, end, ' '))
            at++;
    }
}

struct span {
    at_t from, to; /* from is NULL: it is not there */
};

/* From or To; the tag is its first parameter, if it has one */
static bool
tagged(at_t at, at_t end, struct span *tag)
{
    at_t stop;
    if (BEGINS(at, end, "sip:") || BEGINS(at, end, "sips:")) {
        stop = at = at + (at[3] == ':' ? 4 : 5);
        while (is(stop, end, VISIBLE) && memchr("\"<>,;?", *stop, 6) == NULL)
            stop++;
        if (stop == at)
            return false;
    } else {
        stop = address(at, end);
        if (stop == NULL)
            return false;
    }
    tag->from = NULL;
    if (BEGINS(stop, end, ";tag=") && is(stop + 5, end, TOKEN)) {
        tag->from = stop + 5;
        stop = tag->to = run(stop + 5, end, TOKEN);
    }
    while (is_octet(stop, end, ';')) {
        stop++;
        if (end - stop >= 3 && (stop[0] | 32) == 't' && (stop[1] | 32) == 'a' &&
            (stop[2] | 32) == 'g')
            return false;
        stop = param(stop, end);
        if (stop == NULL)
            return false;
    }
    return stop == end;
}

static bool
digits(at_t at, at_t end, Py_ssize_t most)
{
    return at < end && end - at <= most && run(at, end, DIGIT) == end;
}

/* -- the head of a request ----------------------------------------------------------------------- */

/* what the rows are read as; usual.py tells which canonical names are which */
enum kind {
    OTHER, VIA, FROM, TO, CALL_ID, CSEQ, MAX_FORWARDS, CONTENT_LENGTH, ADDRESSES, RECORD_ROUTE,
    SINGLE, /* and all above: other rows that may stand only once */
};
enum { MANDATORY = 1 << VIA | 1 << FROM | 1 << TO | 1 << CALL_ID | 1 << CSEQ };

struct request {
    struct span method, uri, v6;
    struct span via, transport, sent_by, host, port, params, rest;
    struct span from_tag, to_tag, call_id, cseq_method, length;
};

static bool
start_line(at_t at, at_t end, struct request *found)
{
    found->method = (struct span){at, run(at, end, TOKEN)};
    at = found->method.to;
    if (at == found->method.from || !is_octet(at, end, ' '))
        return false;
    at++;
    found->uri.from = at;
    if (BEGINS(at, end, "sip:"))
        at += 4;
    else if (BEGINS(at, end, "sips:"))
        at += 5;
    else
        return false;
    at_t user = run(at, end, USER);
    if (is_octet(user, end, '@')) {
        if (user == at)
            return false;
        at = user + 1;
    }
    if (is_octet(at, end, '[')) {
        at_t stop = bracketed(at, end);
        if (stop == NULL)
            return false;
        found->v6 = (struct span){at + 1, stop - 1};
        at = stop;
    } else {
        at_t stop = run(at, end, HOST);
        if (stop == at)
            return false;
        at = stop;
    }
    if (is_octet(at, end, ':')) {
        at = port(at + 1, end);
        if (at == NULL)
            return false;
    }
    while (is_octet(at, end, ';'))
        at = run(at + 1, end, URI_PARAM);
    found->uri.to = at;
    return end - at == 8 && memcmp(at, " SIP/2.0", 8) == 0;
}

static bool
top_via(at_t at, at_t end, struct request *found)
{
    if (!BEGINS(at, end, "SIP/2.0/"))
        return false;
    found->via.from = at;
    found->transport = (struct span){at + 8, run(at + 8, end, UPPER)};
    at = found->transport.to;
    if (at == found->transport.from || !is_octet(at, end, ' '))
        return false;
    found->sent_by.from = found->host.from = ++at;
    if (is_octet(at, end, '[')) {
        at = bracketed(at, end);
        if (at == NULL)
            return false;
    } else {
        while (at < end && (class_of[*at] & HOST || *at == '_'))
            at++;
        if (at == found->host.from)
            return false;
    }
    found->host.to = at;
    if (is_octet(at, end, ':')) {
        found->port.from = at + 1;
        at = found->port.to = port(at + 1, end);
        if (at == NULL)
            return false;
    }
    found->sent_by.to = found->params.from = at;
    while (is_octet(at, end, ';')) {
        at++;
        if (!is(at, end, LOWER))
            return false;
        at++;
        while (at < end && (class_of[*at] & (LOWER | DIGIT) || *at == '-'))
            at++;
        if (is_octet(at, end, '='))
            for (at++; is(at, end, VISIBLE) && *at != '"' && *at != ';' && *at != ','; at++)
                ;
    }
    found->params.to = found->via.to = at;
    if (is_octet(at, end, ',')) {
        at++;
        if (is_octet(at, end, ' '))
            at++;
        if (at >= end || *at <= ' ')
            return false;
        found->rest = (struct span){at, end};
        return true;
    }
    return at == end;
}

/* one row, from behind the SP that follows its colon; "usual" rows have that SP */
static bool
row_value(enum kind kind, at_t at, at_t end, struct request *found)
{
    switch (kind) {
    case FROM:
        return tagged(at, end, &found->from_tag);
    case TO:
        return tagged(at, end, &found->to_tag);
    case CALL_ID:
        found->call_id = (struct span){at, end};
        return at < end && run(at, end, VISIBLE) == end;
    case CSEQ: {
        at_t stop = run(at, end, DIGIT);
        if (stop == at || stop - at > 9 || !is_octet(stop, end, ' '))
            return false;
        found->cseq_method = (struct span){stop + 1, end};
        return stop + 1 < end && run(stop + 1, end, TOKEN) == end;
    }
    case MAX_FORWARDS:
        return digits(at, end, 2);
    case CONTENT_LENGTH:
        found->length = (struct span){at, end};
        return digits(at, end, 9);
    case ADDRESSES:
    case RECORD_ROUTE:
        return (end - at == 1 && *at == '*') || listed(at, end);
    default:
        return true;
    }
}

/* -- names ---------------------------------------------------------------------------------------- */

/* spellings that were met, with what names.USUAL said about them; entries never change */
struct name {
    unsigned char spelling[LONGEST_NAME];
    unsigned char size; /* 0: free */
    uint32_t kind;
    PyObject *canonical;
};

static struct name known[KNOWN_NAMES];
static PyObject *usual_names; /* names.USUAL: spelling with its colon -> canonical name */
static PyObject *kinds;       /* canonical name -> enum kind and up */
static PyObject *id_start;

/* what a row is called; NULL without an exception: the name is not usual */
static PyObject *
name_of(at_t at, at_t colon, uint32_t *kind)
{
    size_t size = (size_t)(colon - at);
    struct name *entry = NULL;
    if (size >= 1 && size <= LONGEST_NAME) {
        uint32_t hash = 2166136261u ^ (uint32_t)size;
        for (at_t p = at; p < colon; p++)
            hash = (hash ^ *p) * 16777619u;
        entry = &known[(hash ^ hash >> 15) % KNOWN_NAMES];
        if (entry->size == size && memcmp(entry->spelling, at, size) == 0) {
            *kind = entry->kind;
            return entry->canonical;
        }
    }
    PyObject *spelling = PyBytes_FromStringAndSize((const char *)at, (Py_ssize_t)size + 1);
    if (spelling == NULL)
        return NULL;
    PyObject *canonical = PyDict_GetItemWithError(usual_names, spelling); /* borrowed, kept there */
    Py_DECREF(spelling);
    if (canonical == NULL)
        return NULL;
    PyObject *number = PyDict_GetItemWithError(kinds, canonical);
    if (number == NULL && PyErr_Occurred())
        return NULL;
    *kind = number == NULL ? OTHER : (uint32_t)PyLong_AsUnsignedLong(number);
    if (entry != NULL && entry->size == 0) {
        memcpy(entry->spelling, at, size);
        entry->size = (unsigned char)size;
        entry->kind = *kind;
        entry->canonical = Py_NewRef(canonical);
    }
    return canonical;
}

/* -- values for Python ------------------------------------------------------------------------------ */

static PyObject *
octets(struct span span)
{
    if (span.from == NULL)
        return Py_NewRef(Py_None);
    return PyBytes_FromStringAndSize((const char *)span.from, span.to - span.from);
}

static int
append(PyObject *list, PyObject *stolen)
{
    if (stolen == NULL)
        return -1;
    int failed = PyList_Append(list, stolen);
    Py_DECREF(stolen);
    return failed;
}

/* The end of the row at *at* (without its CRLF), NULL if it has none or a bare CR or LF. */
static at_t
row_end(at_t at, at_t end)
{
    at_t stop = find(at, end, '\n');
    if (stop == NULL || stop == at || stop[-1] != '\r')
        return NULL;
    stop--;
    return find(at, stop, '\r') == NULL ? stop : NULL;
}

/* Fill found, lines and ids.  1 usual, 0 not, -1 exception; *body is behind the empty line. */
static int
read_head(at_t at, at_t end, struct request *found, PyObject *lines, PyObject *ids, at_t *body)
{
    at_t stop = row_end(at, end);
    if (stop == NULL || !start_line(at, stop, found))
        return 0;
    uint32_t seen = 0;
    int rows = 0;
    if (append(lines, octets((struct span){at, stop})) || PyList_Append(ids, id_start))
        return -1;
    for (at = stop + 2;; at = stop + 2, rows++) {
        stop = row_end(at, end);
        if (stop == NULL)
            return 0;
        if (stop == at)
            break;
        if (rows == MAX_ROWS_LIMIT)
            return 0;
        at_t colon = find(at, stop, ':');
        if (colon == NULL)
            return 0;
        uint32_t kind = OTHER;
        PyObject *name = name_of(at, colon, &kind);
        if (name == NULL)
            return PyErr_Occurred() ? -1 : 0;
        bool once = kind != OTHER && kind != VIA && kind != ADDRESSES && kind != RECORD_ROUTE;
        if (once && seen & 1u << kind)
            return 0;
        bool spaced = is_octet(colon + 1, stop, ' ');
        if (!(seen & 1 << VIA)) { /* only Record-Route stands above the topmost Via */
            if (!spaced)
                return 0;
            if (kind == VIA) {
                if (!BEGINS(at, stop, "Via:") && !BEGINS(at, stop, "v:"))
                    return 0;
                if (!top_via(colon + 2, stop, found))
                    return 0;
            } else if (kind != RECORD_ROUTE || !listed(colon + 2, stop))
                return 0;
        } else if (kind > VIA && kind < SINGLE) {
            if (!spaced || !row_value((enum kind)kind, colon + 2, stop, found))
                return 0;
        }
        seen |= 1u << kind;
        if (append(lines, octets((struct span){at, stop})) || PyList_Append(ids, name))
            return -1;
    }
    *body = stop + 2;
    return (seen & MANDATORY) == MANDATORY;
}

PyDoc_STRVAR(request_doc,
"request(data)\n--\n\n"
"What ``usual.index_request`` returns.");

static PyObject *
request(PyObject *self, PyObject *data)
{
    (void)self;
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "request: bytes expected");
        return NULL;
    }
    if (usual_names == NULL)
        return Py_NewRef(Py_None);
    at_t at = (at_t)PyBytes_AS_STRING(data), end = at + PyBytes_GET_SIZE(data), body = NULL;
    struct request found;
    memset(&found, 0, sizeof found);
    PyObject *lines = PyList_New(0), *ids = PyList_New(0), *result = NULL;
    int usual = lines == NULL || ids == NULL ? -1
                                             : read_head(at, end, &found, lines, ids, &body);
    if (usual == 0)
        result = Py_NewRef(Py_None);
    else if (usual > 0) {
        struct span spans[] = {
            found.method, found.uri, found.v6, found.via, found.transport, found.sent_by,
            found.host, found.port, found.params, found.rest, found.from_tag, found.to_tag,
            found.call_id, found.cseq_method, found.length,
        };
        enum { SPANS = sizeof spans / sizeof *spans };
        PyObject *words = PyTuple_New(SPANS);
        for (int i = 0; words != NULL && i < SPANS; i++) {
            PyObject *word = octets(spans[i]);
            if (word == NULL)
                Py_CLEAR(words);
            else
                PyTuple_SET_ITEM(words, i, word);
        }
        result = Py_BuildValue("(OOnN)", lines, ids, (Py_ssize_t)(body - at), words);
    }
    Py_XDECREF(lines);
    Py_XDECREF(ids);
    return result;
}

/* -- the head of a response ----------------------------------------------------------------------- */

struct response {
    struct span reason, sent, branch, cseq_method;
    at_t via, via_end;
    long length;
};

/* "Via: SIP/2.0/..." as we write it, from behind "Via: " */
static bool
own_via(at_t at, at_t end, struct response *found)
{
    at_t stop = at;
    while ((stop = find(stop, end, ';')) != NULL && !BEGINS(stop, end, ";branch="))
        stop++;
    if (stop == NULL)
        return false;
    found->sent = (struct span){at, stop};
    found->branch = (struct span){stop + 8, run(stop + 8, end, TOKEN)};
    at = found->branch.to;
    if (at - found->branch.from <= 7 || (at < end && *at != ';') || find(at, end, ','))
        return false;
    for (; at < end; at++)
        if (BEGINS(at, end, "branch"))
            return false;
    return true;
}

/* 1 to 9 digits as a number, -1 for all else */
static long
short_number(at_t at, at_t end)
{
    long number = 0;
    if (!digits(at, end, 9))
        return -1;
    for (; at < end; at++)
        number = number * 10 + (*at - '0');
    return number;
}

static bool
read_response(at_t at, at_t end, struct response *found, at_t *body)
{
    at_t stop = row_end(at, end);
    if (stop == NULL || stop - at < 12 || !BEGINS(at, stop, "SIP/2.0 "))
        return false;
    if (at[8] < '1' || at[8] > '6' || run(at + 9, stop, DIGIT) < at + 11 || at[11] != ' ')
        return false;
    found->reason = (struct span){at + 12, stop};
    found->length = -1;
    enum { NONE, IN_VIA, IN_CSEQ, IN_LENGTH } previous = NONE;
    bool with_cseq = false, with_length = false;
    int rows = 0;
    for (at = stop + 2;; at = stop + 2, rows++) {
        stop = row_end(at, end);
        if (stop == NULL)
            return false;
        if (stop == at)
            break;
        if (rows == MAX_ROWS_LIMIT)
            return false;
        if (previous != NONE && (*at == ' ' || *at == '\t'))
            return false; /* folded */
        previous = NONE;
        if (found->via == NULL) {
            if (BEGINS(at, stop, "Via: SIP/2.0/")) {
                if (!own_via(at + 5, stop, found))
                    return false;
                found->via = at;
                found->via_end = stop;
                previous = IN_VIA;
            } else if (!BEGINS(at, stop, "Record-Route: "))
                return false;
        } else if (!with_cseq && BEGINS(at, stop, "CSeq: ")) {
            at_t space = run(at + 6, stop, DIGIT);
            if (!digits(at + 6, space, 9) || !is_octet(space, stop, ' ') || space + 1 == stop)
                return false;
            found->cseq_method = (struct span){space + 1, stop};
            with_cseq = true;
            previous = IN_CSEQ;
        } else if (!with_length && BEGINS(at, stop, "Content-Length: ")) {
            found->length = short_number(at + 16, stop);
            with_length = true;
            previous = IN_LENGTH;
        }
    }
    *body = stop + 2;
    return found->length >= 0 && with_cseq;
}

PyDoc_STRVAR(response_doc,
"response(data)\n--\n\n"
"What ``usual.index_response`` returns.");

static PyObject *
response(PyObject *self, PyObject *data)
{
    (void)self;
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "response: bytes expected");
        return NULL;
    }
    at_t at = (at_t)PyBytes_AS_STRING(data), end = at + PyBytes_GET_SIZE(data), body = NULL;
    struct response found;
    memset(&found, 0, sizeof found);
    if (!read_response(at, end, &found, &body))
        return Py_NewRef(Py_None);
    int status = (at[8] - '0') * 100 + (at[9] - '0') * 10 + (at[10] - '0');
    return Py_BuildValue(
        "(iNNNNnnln)", status, octets(found.reason), octets(found.cseq_method), octets(found.sent),
        octets(found.branch), found.via - at, found.via_end - at, found.length, body - at);
}

/* -- the module --------------------------------------------------------------------------------------- */

PyDoc_STRVAR(setup_doc,
"setup(names, kinds, start)\n--\n\n"
"``names``: ``names.USUAL``; ``kinds``: canonical name -> number of the kind of row; ``start``:\n"
"the name of the start line.  Before that, ``request`` accepts nothing.");

static PyObject *
setup(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *names, *numbers, *start;
    if (!PyArg_ParseTuple(args, "O!O!S", &PyDict_Type, &names, &PyDict_Type, &numbers, &start))
        return NULL;
    PyObject *key, *value;
    for (Py_ssize_t at = 0; PyDict_Next(numbers, &at, &key, &value);) {
        unsigned long number = PyLong_AsUnsignedLong(value);
        if (number >= 32) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "setup: no such kind");
            return NULL;
        }
    }
    for (int i = 0; i < KNOWN_NAMES; i++) {
        known[i].size = 0;
        Py_CLEAR(known[i].canonical);
    }
    Py_XSETREF(usual_names, Py_NewRef(names));
    Py_XSETREF(kinds, Py_NewRef(numbers));
    Py_XSETREF(id_start, Py_NewRef(start));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"request", request, METH_O, request_doc},
    {"response", response, METH_O, response_doc},
    {"setup", setup, METH_VARARGS, setup_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_usual",
    .m_doc = "The usual heads, read in C; see usual.py.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__usual(void)
{
    fill_classes();
    return PyModule_Create(&module);
}
