/*
 * measure.h: what both generators count, and how: clocks, the CPU time of the device, transactions that
 * ended, got lost or went wrong, and the line of JSON that says so.
 */
#ifndef MEASURE_H
#define MEASURE_H
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PIDS = 64, MAX_SAMPLES = 8000000 };

/* -- clocks ----------------------------------------------------------------------------------- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double own_cpu(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + 1e-6 * (r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

static int pids[MAX_PIDS], pid_count;

/* Process ids, separated by commas. */
static void watch(char *list) {
    for (char *pid = strtok(list, ","); pid && pid_count < MAX_PIDS; pid = strtok(NULL, ","))
        pids[pid_count++] = atoi(pid);
}

struct cpu {
    double user, system;
};

/* Of all threads of all processes of the device; the kernel's resolution is 10 ms. */
static struct cpu device_cpu(void) {
    struct cpu sum = {0, 0};
    double tick = sysconf(_SC_CLK_TCK);
    for (int i = 0; i < pid_count; i++) {
        char path[64], text[1024];
        snprintf(path, sizeof path, "/proc/%d/stat", pids[i]);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
        char *fields = strrchr(text, ')');
        unsigned long user, system;
        if (fields && sscanf(fields + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                             &user, &system) == 2) {
            sum.user += user / tick;
            sum.system += system / tick;
        }
    }
    return sum;
}

/* -- counts ----------------------------------------------------------------------------------- */

static long done, lost, bad;
static float *latency; /* microseconds */
static long latencies;

static void sample(double seconds) {
    done++;
    if (latencies < MAX_SAMPLES)
        latency[latencies++] = seconds * 1e6;
}

static double measured_since, own_before;
static struct cpu device_before;

static void begin_to_measure(double at) {
    measured_since = at;
    own_before = own_cpu();
    device_before = device_cpu();
    done = lost = latencies = 0;
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* One line of JSON; `extra` is what else belongs to it, with a comma before it, or "". */
static void report(const char *name, double at, const char *extra) {
    double seconds = at - measured_since, generator = own_cpu() - own_before;
    double each = 1e6 / (done ? done : 1);
    struct cpu a = device_before, b = device_cpu();
    qsort(latency, latencies, sizeof *latency, by_size);
    float none = 0, *samples = latencies ? latency : &none;
    long last = latencies ? latencies - 1 : 0;
    printf("{\"job\": \"%s\", \"rate\": %.1f, \"seconds\": %.2f, \"done\": %ld, \"lost\": %ld, "
           "\"bad\": %ld, \"generator_cpu\": %.2f, \"cpu_us\": %.2f, \"user_us\": %.2f, "
           "\"system_us\": %.2f, \"p50_us\": %.0f, \"p99_us\": %.0f, \"max_us\": %.0f%s}\n",
           name, done / seconds, seconds, done, lost, bad, generator / seconds,
           each * (b.user - a.user + b.system - a.system), each * (b.user - a.user),
           each * (b.system - a.system), samples[last / 2], samples[last * 99 / 100],
           samples[last], extra);
    fflush(stdout);
}

#endif
