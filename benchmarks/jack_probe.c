/* Plays a file of interleaved float32 into another JACK client and records what it gives back, sample by sample.
     jack_probe CLIENT IN OUT CHANNELS
   The first sample of OUT is what the client returns in the cycle in which it is given the first sample of IN. On an
   error it prints one line to standard error and exits with 1. */
#include <jack/jack.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 4
static jack_port_t *to[MOST], *from[2];
static float *played, *recorded;
static long frames;
static atomic_long at, skipped, first_skipped;
static int channels;
static atomic_int running, ended;

static void need (int holds, const char* what, const char* about)
{
    if (holds)
        return;
    fprintf (stderr, "jack_probe: %s%s%s\n", what, about[0] ? ": " : "", about);
    exit (1);
}

static int process (jack_nframes_t count, void* unused)
{
    (void) unused;
    float* out[MOST];
    for (int c = 0; c < channels; ++c)
        out[c] = jack_port_get_buffer (to[c], count);
    const float* in[2] = { jack_port_get_buffer (from[0], count), jack_port_get_buffer (from[1], count) };
    const int on = atomic_load (&running);
    long here = atomic_load (&at);
    for (jack_nframes_t i = 0; i < count; ++i)
    {
        const int plays = on && here < frames;
        for (int c = 0; c < channels; ++c)
            out[c][i] = plays ? played[here * channels + c] : 0.0f;
        if (! plays)
            continue;
        recorded[2 * here] = in[0][i];
        recorded[2 * here + 1] = in[1][i];
        ++here;
    }
    atomic_store (&at, here);
    return 0;
}

static int on_xrun (void* unused)
{
    (void) unused;
    const long here = atomic_load (&at);
    if (atomic_load (&running) && here < frames && atomic_fetch_add (&skipped, 1) == 0)
        atomic_store (&first_skipped, here);
    return 0;
}

static void on_shutdown (void* unused)
{
    (void) unused;
    atomic_store (&ended, 1);
}

static void read_audio (const char* path)
{
    FILE* file = fopen (path, "rb");
    need (file != NULL, "cannot be read", path);
    need (fseek (file, 0, SEEK_END) == 0, "cannot be read", path);
    frames = ftell (file) / (long) sizeof (float) / channels;
    need (frames > 0, "contains no audio", path);
    rewind (file);
    played = calloc ((size_t) (frames * channels), sizeof (float));
    recorded = calloc ((size_t) (frames * 2), sizeof (float));
    need (played != NULL && recorded != NULL, "out of memory", "");
    need (fread (played, sizeof (float), (size_t) (frames * channels), file) == (size_t) (frames * channels), "cannot be read", path);
    fclose (file);
}

static void write_audio (const char* path)
{
    FILE* file = fopen (path, "wb");
    need (file != NULL, "cannot be written", path);
    const size_t wanted = (size_t) (frames * 2);
    const size_t written = fwrite (recorded, sizeof (float), wanted, file);
    need (fclose (file) == 0 && written == wanted, "cannot be written", path);
}

static int count_of (const char** names)
{
    int count = 0;
    while (names && names[count])
        ++count;
    return count;
}

/* The names of the client's audio ports. Waits until there are at least `wanted`, since the client may still be starting. */
static const char** ports_of (jack_client_t* client, const char* name, unsigned long kind, int wanted)
{
    char pattern[128];
    snprintf (pattern, sizeof pattern, "^%s:", name);
    for (int tries = 0; tries < 100; ++tries)
    {
        const char** found = jack_get_ports (client, pattern, JACK_DEFAULT_AUDIO_TYPE, kind);
        if (count_of (found) >= wanted)
            return found;
        usleep (100000);
    }
    need (0, "there is no such client, or it has too few ports", name);
    return NULL;
}

int main (int count, char** words)
{
    need (count == 5, "usage", "jack_probe CLIENT IN OUT CHANNELS");
    channels = atoi (words[4]);
    need (channels >= 1 && channels <= MOST, "the number of channels has to be 1 to 4", words[4]);
    read_audio (words[2]);

    jack_client_t* client = jack_client_open ("probe", JackNoStartServer, NULL);
    need (client != NULL, "no JACK server", "");
    for (int c = 0; c < channels + 2; ++c)
    {
        const int out = c < channels;
        char name[16];
        snprintf (name, sizeof name, out ? "to_%d" : "from_%d", out ? c : c - channels);
        jack_port_t* port = jack_port_register (client, name, JACK_DEFAULT_AUDIO_TYPE, out ? JackPortIsOutput : JackPortIsInput, 0);
        need (port != NULL, "no port", name);
        *(out ? &to[c] : &from[c - channels]) = port;
    }
    jack_set_process_callback (client, process, NULL);
    jack_set_xrun_callback (client, on_xrun, NULL);
    jack_on_shutdown (client, on_shutdown, NULL);
    need (jack_activate (client) == 0, "JACK does not activate the client", "");

    const char** inputs = ports_of (client, words[1], JackPortIsInput, channels);
    const char** outputs = ports_of (client, words[1], JackPortIsOutput, 2);
    for (int c = 0; c < channels; ++c)
        need (jack_connect (client, jack_port_name (to[c]), inputs[c]) == 0, "not connected", inputs[c]);
    for (int c = 0; c < 2; ++c)
        need (jack_connect (client, outputs[c], jack_port_name (from[c])) == 0, "not connected", outputs[c]);
    usleep (500000);

    atomic_store (&running, 1);
    const double most_s = 30.0 + 2.0 * (double) frames / jack_get_sample_rate (client);
    for (double waited_s = 0.0; atomic_load (&at) < frames; waited_s += 0.05)
    {
        need (! atomic_load (&ended), "the JACK server has stopped", "");
        need (waited_s < most_s, "JACK makes no progress", "");
        usleep (50000);
    }

    /* jalv reports the latency of its plug-in at its input ports. */
    jack_port_t* first = jack_port_by_name (client, inputs[0]);
    need (first != NULL, "the client has disappeared", words[1]);
    jack_latency_range_t latency;
    jack_port_get_latency_range (first, JackCaptureLatency, &latency);
    write_audio (words[3]);
    const long times = atomic_load (&skipped);
    printf ("latency %u skipped %ld first %ld\n", latency.max, times, times ? (long) atomic_load (&first_skipped) : frames);
    jack_client_close (client);
    return 0;
}
