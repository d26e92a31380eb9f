#pragma once

#include <juce_core/juce_core.h>

namespace stemprover
{

/** A TCP connection to a port of this machine that never blocks for longer than it is told, and whose end is no signal to
    the host (juce::StreamingSocket's is, where the host has not blocked SIGPIPE). */
class Connection
{
public:
    ~Connection() { close(); }

    bool open (int port, int timeoutMs);
    void close();
    bool isOpen() const { return handle >= 0; }

    /** What has come, up to `size` bytes: 0 where nothing has, -1 where the connection has ended. */
    int read (void* into, int size);
    /** As much as there is room for: 0 where there is none within the time, -1 where the connection has ended. */
    int write (const void* from, int size, int timeoutMs);

private:
   #if JUCE_WINDOWS
    juce::StreamingSocket socket;
   #endif
    int handle = -1;
};

} // namespace stemprover
