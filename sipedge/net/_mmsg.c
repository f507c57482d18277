/*
 * Stops 1 and 8: recvmmsg and sendmmsg for mmsg.py, in C for the optional compiled build.
 *
 * Strategy: what MmsgIO does through ctypes, with the same slab, so that no datagram is truncated.
 * One slab serves all callers: neither function lets go of the GIL, since neither ever waits.  An
 * address key is the packed sockaddr, as MmsgIO has it.
 */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    BATCH = 64,
    LARGEST = 65536,      /* UDP carries 65,507 octets over IPv4, 65,527 over IPv6 */
    SLOT = LARGEST + 128, /* no power of two: else all slots would share the same cache sets */
};

static char *slab; /* of BATCH slots; pages that no datagram reached take no memory */
static struct sockaddr_in6 names[BATCH];
static struct iovec pieces[BATCH];
static struct mmsghdr headers[BATCH];

/* -1 with an exception if it is none */
static int
descriptor(PyObject *number)
{
    long fd = PyLong_AsLong(number);
    if (fd >= 0 && fd <= INT_MAX)
        return (int)fd;
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "no file descriptor");
    return -1;
}

PyDoc_STRVAR(receive_doc,
"receive(fd)\n--\n\n"
"Up to 64 waiting datagrams as (octets, address key), none if there are none.  Raises OSError.");

static PyObject *
receive(PyObject *self, PyObject *argument)
{
    (void)self;
    int fd = descriptor(argument);
    if (fd < 0)
        return NULL;
    for (int i = 0; i < BATCH; i++) {
        pieces[i] = (struct iovec){slab + (size_t)i * SLOT, LARGEST};
        headers[i].msg_hdr = (struct msghdr){
            .msg_name = &names[i], .msg_namelen = sizeof names[i],
            .msg_iov = &pieces[i], .msg_iovlen = 1,
        };
    }
    int count = recvmmsg(fd, headers, BATCH, MSG_DONTWAIT, NULL);
    if (count < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return PyErr_SetFromErrno(PyExc_OSError);
        count = 0;
    }
    PyObject *list = PyList_New(count);
    for (int i = 0; list != NULL && i < count; i++) {
        PyObject *data = PyBytes_FromStringAndSize(pieces[i].iov_base, headers[i].msg_len);
        PyObject *name = PyBytes_FromStringAndSize(
            (char *)&names[i], headers[i].msg_hdr.msg_namelen);
        PyObject *pair = data == NULL || name == NULL ? NULL : PyTuple_Pack(2, data, name);
        Py_XDECREF(data);
        Py_XDECREF(name);
        if (pair == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, pair);
    }
    return list;
}

PyDoc_STRVAR(send_doc,
"send(fd, data, keys)\n--\n\n"
"Send up to 64 datagrams; returns how many the system took.  Raises OSError if it did not take the\n"
"first one.");

static PyObject *
send_batch(PyObject *self, PyObject *const *arguments, Py_ssize_t given)
{
    (void)self;
    if (given != 3 || !PyList_CheckExact(arguments[1]) || !PyList_CheckExact(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "send: a descriptor and two lists expected");
        return NULL;
    }
    int fd = descriptor(arguments[0]);
    if (fd < 0)
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(arguments[1]);
    if (count > BATCH || count != PyList_GET_SIZE(arguments[2])) {
        PyErr_SetString(PyExc_ValueError, "send: too many datagrams, or not one key for each");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *data = PyList_GET_ITEM(arguments[1], i);
        PyObject *key = PyList_GET_ITEM(arguments[2], i);
        if (!PyBytes_Check(data) || !PyBytes_Check(key)) {
            PyErr_SetString(PyExc_TypeError, "send: bytes expected");
            return NULL;
        }
        pieces[i] = (struct iovec){PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data)};
        headers[i].msg_hdr = (struct msghdr){
            .msg_name = PyBytes_AS_STRING(key), .msg_namelen = (socklen_t)PyBytes_GET_SIZE(key),
            .msg_iov = &pieces[i], .msg_iovlen = 1,
        };
    }
    int sent = sendmmsg(fd, headers, (unsigned)count, MSG_DONTWAIT);
    return sent < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(sent);
}

static PyMethodDef methods[] = {
    {"receive", receive, METH_O, receive_doc},
    {"send", (PyCFunction)(void (*)(void))send_batch, METH_FASTCALL, send_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_mmsg",
    .m_doc = "recvmmsg and sendmmsg; see mmsg.py.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__mmsg(void)
{
    slab = calloc(BATCH, SLOT);
    return slab == NULL ? PyErr_NoMemory() : PyModule_Create(&module);
}
