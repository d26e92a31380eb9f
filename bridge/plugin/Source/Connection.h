#pragma once

#include <juce_core/juce_core.h>

namespace stemprover
{

/** A TCP connection to a port of this machine. No call blocks longer than its timeout. A connection that breaks does not
    raise SIGPIPE, which would end the host; juce::StreamingSocket does if the host has not blocked the signal. */
class Connection
{
public:
    ~Connection() { close(); }

    bool open (int port, int timeoutMs);
    void close();
    bool isOpen() const { return handle >= 0; }

    /** Reads up to `size` bytes without waiting. Returns their number, 0 if none have arrived, or -1 if the connection
        ended. */
    int read (void* into, int size);
    /** Writes as much as there is room for. Returns the number of bytes, 0 on timeout, or -1 if the
        connection ended. */
    int write (const void* from, int size, int timeoutMs);

private:
   #if JUCE_WINDOWS
    juce::StreamingSocket socket;
   #endif
    int handle = -1;
};

} // namespace stemprover
