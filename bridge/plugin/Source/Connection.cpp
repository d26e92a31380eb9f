#include "Connection.h"

#if ! JUCE_WINDOWS
 #include <arpa/inet.h>
 #include <fcntl.h>
 #include <netinet/in.h>
 #include <netinet/tcp.h>
 #include <poll.h>
 #include <sys/socket.h>
 #include <unistd.h>
#endif

namespace stemprover
{

#if JUCE_WINDOWS

bool Connection::open (int port, int timeoutMs)
{
    close();
    handle = socket.connect ("127.0.0.1", port, timeoutMs) ? 0 : -1;
    return isOpen();
}

void Connection::close()
{
    socket.close();
    handle = -1;
}

int Connection::read (void* into, int size)
{
    const auto ready = socket.waitUntilReady (true, 0);
    if (ready <= 0)
        return ready;
    const auto count = socket.read (into, size, false);
    return count > 0 ? count : -1;
}

int Connection::write (const void* from, int size, int timeoutMs)
{
    const auto ready = socket.waitUntilReady (false, timeoutMs);
    return ready <= 0 ? ready : socket.write (from, size);
}

#else

 #ifdef MSG_NOSIGNAL
static constexpr int sendFlags = MSG_NOSIGNAL;
 #else
static constexpr int sendFlags = 0;
 #endif

static bool waitFor (int handle, short events, int timeoutMs)
{
    pollfd request { handle, events, 0 };
    return poll (&request, 1, timeoutMs) == 1;
}

bool Connection::open (int port, int timeoutMs)
{
    close();
    handle = socket (AF_INET, SOCK_STREAM, 0);
    if (handle < 0)
        return false;
    const int on = 1;
    setsockopt (handle, IPPROTO_TCP, TCP_NODELAY, &on, sizeof (on));
   #ifdef SO_NOSIGPIPE
    setsockopt (handle, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof (on));
   #endif
    fcntl (handle, F_SETFD, FD_CLOEXEC); // a bridge that the plug-in starts must not inherit it
    fcntl (handle, F_SETFL, fcntl (handle, F_GETFL, 0) | O_NONBLOCK);

    sockaddr_in address {};
    address.sin_family = AF_INET;
    address.sin_port = htons ((uint16_t) port);
    address.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
    auto connected = ::connect (handle, reinterpret_cast<const sockaddr*> (&address), sizeof (address)) == 0;
    if (! connected && errno == EINPROGRESS && waitFor (handle, POLLOUT, timeoutMs))
    {
        int error = 0;
        socklen_t size = sizeof (error);
        connected = getsockopt (handle, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
    }
    if (! connected)
        close();
    return connected;
}

void Connection::close()
{
    if (handle >= 0)
        ::close (handle);
    handle = -1;
}

int Connection::read (void* into, int size)
{
    const auto count = ::recv (handle, into, (size_t) size, 0);
    if (count > 0)
        return (int) count;
    return count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) ? 0 : -1;
}

int Connection::write (const void* from, int size, int timeoutMs)
{
    const auto count = ::send (handle, from, (size_t) size, sendFlags);
    if (count > 0)
        return (int) count;
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        return -1;
    waitFor (handle, POLLOUT, timeoutMs);
    return 0;
}

#endif

} // namespace stemprover
