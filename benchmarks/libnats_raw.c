/* C libnats as a contender: raw bytes, no events. Debian's package libnats-dev brings header and library.
 *
 *     libnats_raw sub|pub|store|fetch URL SUBJECT EVENTS BYTES [STREAM]
 *
 * Talks by lines of JSON as the other contenders do: says {"ready": true}, publishers then wait for a line, and at the
 * end says what was counted. sub and pub are core NATS; store publishes to JetStream with 4096 confirmations pending;
 * fetch pulls 1024 messages at a time and acknowledges each.
 */
#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define PENDING 4096
#define FETCH 1024
#define WAIT_MS 60000

static int64_t wanted, counted;
static double begun, begun_cpu;
static volatile int done;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static double cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double) (u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double) (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void check(natsStatus s, const char *what)
{
    if (s != NATS_OK) {
        fprintf(stderr, "libnats: %s: %s\n", what, natsStatus_GetText(s));
        exit(1);
    }
}

static void ready(void)
{
    printf("{\"ready\": true}\n");
    fflush(stdout);
}

static void await_release(void)
{
    char line[16];
    if (fgets(line, sizeof line, stdin) == NULL)
        exit(1);
}

static void begin(void)
{
    begun_cpu = cpu();
    begun = now();
}

static void report(void)
{
    printf("{\"received\": %lld, \"seconds\": %.6f, \"cpu\": %.6f}\n", (long long) counted, now() - begun,
           cpu() - begun_cpu);
    fflush(stdout);
}

static void on_message(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *closure)
{
    (void) nc;
    (void) sub;
    (void) closure;
    if (counted == 0)
        begin();
    if (++counted >= wanted)
        done = 1;
    natsMsg_Destroy(msg);
}

static void subscribe(natsConnection *nc, const char *subject)
{
    natsSubscription *sub = NULL;
    double until;
    check(natsConnection_Subscribe(&sub, nc, subject, on_message, NULL), "subscribe");
    check(natsSubscription_SetPendingLimits(sub, -1, -1), "limits");
    check(natsConnection_Flush(nc), "flush");
    ready();
    until = now() + WAIT_MS / 1e3;
    while (!done && now() < until)
        usleep(200);
    report();
    natsSubscription_Destroy(sub);
}

static void publish(natsConnection *nc, const char *subject, const char *body, int bytes)
{
    check(natsConnection_Flush(nc), "flush");
    ready();
    await_release();
    begin();
    for (counted = 0; counted < wanted; counted++)
        check(natsConnection_Publish(nc, subject, body, bytes), "publish");
    check(natsConnection_Flush(nc), "flush");
    report();
}

static void store(natsConnection *nc, const char *subject, const char *body, int bytes)
{
    jsOptions options;
    jsCtx *js = NULL;
    check(jsOptions_Init(&options), "options");
    options.PublishAsync.MaxPending = PENDING;
    options.PublishAsync.StallWait = WAIT_MS;
    check(natsConnection_JetStream(&js, nc, &options), "jetstream");
    ready();
    await_release();
    begin();
    for (counted = 0; counted < wanted; counted++)
        check(js_PublishAsync(js, subject, body, bytes, NULL), "publish");
    check(js_PublishAsyncComplete(js, NULL), "confirmations");
    report();
    jsCtx_Destroy(js);
}

static void fetch(natsConnection *nc, const char *subject, const char *stream)
{
    jsCtx *js = NULL;
    jsSubOptions options;
    natsSubscription *sub = NULL;
    check(natsConnection_JetStream(&js, nc, NULL), "jetstream");
    check(jsSubOptions_Init(&options), "options");
    options.Stream = stream;
    options.Config.MaxAckPending = 8 * FETCH;
    check(js_PullSubscribe(&sub, js, subject, "libnats", NULL, &options, NULL), "pull");
    ready();
    await_release();
    begin();
    while (counted < wanted) {
        natsMsgList list = {NULL, 0};
        natsStatus s = natsSubscription_Fetch(&list, sub, FETCH, 5000, NULL);
        if (s != NATS_OK)
            break;
        for (int i = 0; i < list.Count; i++)
            check(natsMsg_Ack(list.Msgs[i], NULL), "ack");
        counted += list.Count;
        natsMsgList_Destroy(&list);
    }
    check(natsConnection_Flush(nc), "flush");
    report();
    natsSubscription_Destroy(sub);
    jsCtx_Destroy(js);
}

int main(int argc, char **argv)
{
    natsConnection *nc = NULL;
    const char *mode;
    char *body;
    int bytes;
    if (argc < 6) {
        fprintf(stderr, "usage: %s sub|pub|store|fetch URL SUBJECT EVENTS BYTES [STREAM]\n", argv[0]);
        return 2;
    }
    mode = argv[1];
    wanted = atoll(argv[4]);
    bytes = atoi(argv[5]);
    body = malloc((size_t) bytes + 1);
    memset(body, 'x', (size_t) bytes + 1);
    check(natsConnection_ConnectTo(&nc, argv[2]), "connect");
    if (strcmp(mode, "sub") == 0)
        subscribe(nc, argv[3]);
    else if (strcmp(mode, "pub") == 0)
        publish(nc, argv[3], body, bytes);
    else if (strcmp(mode, "store") == 0)
        store(nc, argv[3], body, bytes);
    else if (strcmp(mode, "fetch") == 0 && argc > 6)
        fetch(nc, argv[3], argv[6]);
    else
        return 2;
    natsConnection_Destroy(nc);
    free(body);
    nats_Close();
    return 0;
}
