/* Plays a file of interleaved float32 into another JACK client and records what it gives back, sample by sample.
     jack_probe CLIENT IN OUT CHANNELS
   The first sample of OUT is what the client gives in the cycle in which it gets the first sample of IN. */
#include <jack/jack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 4
static jack_port_t *to[MOST], *from[2];
static float *played, *recorded;
static long frames, at, xruns;
static int channels;
static volatile int running;

static int process (jack_nframes_t count, void* unused)
{
    (void) unused;
    float* out[MOST];
    for (int c = 0; c < channels; ++c)
        out[c] = jack_port_get_buffer (to[c], count);
    const float* in[2] = { jack_port_get_buffer (from[0], count), jack_port_get_buffer (from[1], count) };
    for (jack_nframes_t i = 0; i < count; ++i)
    {
        const int on = running && at < frames;
        for (int c = 0; c < channels; ++c)
            out[c][i] = on ? played[at * channels + c] : 0.0f;
        if (! on)
            continue;
        recorded[2 * at] = in[0][i];
        recorded[2 * at + 1] = in[1][i];
        ++at;
    }
    return 0;
}

static int on_xrun (void* unused)
{
    (void) unused;
    if (running && at < frames)
        ++xruns;
    return 0;
}

int main (int count, char** words)
{
    if (count != 5)
        return 2;
    channels = atoi (words[4]);
    FILE* file = fopen (words[2], "rb");
    fseek (file, 0, SEEK_END);
    frames = ftell (file) / (long) sizeof (float) / channels;
    rewind (file);
    played = calloc (frames * channels, sizeof (float));
    recorded = calloc (frames * 2, sizeof (float));
    if (fread (played, sizeof (float), frames * channels, file) != (size_t) (frames * channels))
        return 3;
    fclose (file);

    jack_client_t* client = jack_client_open ("probe", JackNoStartServer, NULL);
    if (client == NULL)
        return 4;
    for (int c = 0; c < channels; ++c)
    {
        char name[16];
        snprintf (name, sizeof name, "to_%d", c);
        to[c] = jack_port_register (client, name, JACK_DEFAULT_AUDIO_TYPE, JackPortIsOutput, 0);
    }
    from[0] = jack_port_register (client, "from_0", JACK_DEFAULT_AUDIO_TYPE, JackPortIsInput, 0);
    from[1] = jack_port_register (client, "from_1", JACK_DEFAULT_AUDIO_TYPE, JackPortIsInput, 0);
    jack_set_process_callback (client, process, NULL);
    jack_set_xrun_callback (client, on_xrun, NULL);
    jack_activate (client);

    char pattern[128];
    snprintf (pattern, sizeof pattern, "^%s:", words[1]);
    const char** inputs = NULL;
    const char** outputs = NULL;
    for (int tries = 0; tries < 100 && (! inputs || ! outputs); ++tries)
    {
        usleep (100000);
        inputs = jack_get_ports (client, pattern, JACK_DEFAULT_AUDIO_TYPE, JackPortIsInput);
        outputs = jack_get_ports (client, pattern, JACK_DEFAULT_AUDIO_TYPE, JackPortIsOutput);
    }
    if (! inputs || ! outputs)
        return 5;
    for (int c = 0; c < channels && inputs[c]; ++c)
        if (jack_connect (client, jack_port_name (to[c]), inputs[c]))
            return 6;
    for (int c = 0; c < 2 && outputs[c]; ++c)
        if (jack_connect (client, outputs[c], jack_port_name (from[c])))
            return 7;
    usleep (500000);
    running = 1;
    while (at < frames)
        usleep (50000);

    jack_latency_range_t latency;
    // jalv tells its plug-in's latency with its inputs.
    jack_port_get_latency_range (jack_port_by_name (client, inputs[0]), JackCaptureLatency, &latency);
    file = fopen (words[3], "wb");
    fwrite (recorded, sizeof (float), frames * 2, file);
    fclose (file);
    printf ("latency %u xruns %ld\n", latency.max, xruns);
    jack_client_close (client);
    return 0;
}
