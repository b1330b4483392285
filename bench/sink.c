// The reference: how fast can this machine take bytes off sockets and make them durable, if nothing else is done?
//
//   sink FILE FILE_MIB GROUP_MIB
//
// Expectation: a copy out of the socket (5 to 8 GB/s a core), a copy into the page cache (the same), and the disk. One
// core then moves some 3 GB/s and the disk is the bound.
//
// Receives from any number of connections into one of two group buffers; meanwhile a second thread writes the other one
// behind the last in a file whose blocks exist already, and syncs it. What has arrived when it is done is the next group: the
// same rule as the commit log's, with the same bound. Answers each connection with the bytes of it that are durable, a
// 64-bit little-endian total. No frames, no checks, no order to keep, no index: whatever a VRA does more costs something.
//
// Prints its port, then on SIGTERM: groups, bytes, CPU seconds.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 4096, TURN_BYTES = 256 * 1024, PAGE = 4096 };

struct group {
  char *bytes;
  size_t size;
};

static struct group groups[2];
static size_t group_max;
static int file;
static off_t file_size, file_at;
static int wake; // the writer tells the receiver that a group is durable
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t has_work = PTHREAD_COND_INITIALIZER;
static struct group *writing; // under the lock; NULL while the writer is idle
static unsigned long long group_count, byte_count;
static volatile sig_atomic_t stopping;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void *write_groups(void *unused) {
  (void)unused;
  for (;;) {
    pthread_mutex_lock(&lock);
    while (writing == NULL) pthread_cond_wait(&has_work, &lock);
    struct group *group = writing;
    pthread_mutex_unlock(&lock);
    size_t whole = (group->size + PAGE - 1) / PAGE * PAGE;
    if (file_at + (off_t)whole > file_size) file_at = 0;
    for (size_t done = 0; done < whole;) {
      ssize_t count = pwrite(file, group->bytes + done, whole - done, file_at + (off_t)done);
      if (count < 0) die("pwrite");
      done += (size_t)count;
    }
    if (fdatasync(file) != 0) die("fdatasync");
    file_at += (off_t)whole;
    group_count++;
    byte_count += group->size;
    pthread_mutex_lock(&lock);
    writing = NULL;
    pthread_mutex_unlock(&lock);
    uint64_t one = 1;
    if (write(wake, &one, sizeof one) < 0) die("eventfd");
  }
  return NULL;
}

static uint64_t received[CONNECTIONS_MAX], in_group[2][CONNECTIONS_MAX], answered[CONNECTIONS_MAX];

static void answer(int filling) {
  for (int connection = 0; connection < CONNECTIONS_MAX; connection++) {
    if (in_group[filling][connection] == answered[connection]) continue;
    answered[connection] = in_group[filling][connection];
    if (send(connection, &answered[connection], 8, MSG_NOSIGNAL | MSG_DONTWAIT) != 8) close(connection);
  }
}

static void on_signal(int number) {
  (void)number;
  stopping = 1;
}

static int listen_on_any_port(void) {
  int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  if (bind(server, (struct sockaddr *)&address, size) != 0 || listen(server, 512) != 0) die("listen");
  getsockname(server, (struct sockaddr *)&address, &size);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  return server;
}

static void write_whole_file(void) {
  for (off_t at = 0; at < file_size; at += (off_t)group_max)
    if (pwrite(file, groups[0].bytes, group_max, at) != (ssize_t)group_max) die("pwrite");
  if (fsync(file) != 0) die("fsync");
}

int main(int count, char **arguments) {
  if (count != 4) return fprintf(stderr, "usage: sink FILE FILE_MIB GROUP_MIB\n"), 2;
  signal(SIGPIPE, SIG_IGN);
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGTERM, &action, NULL);
  group_max = (size_t)atoi(arguments[3]) << 20;
  file_size = (off_t)atoi(arguments[2]) << 20;
  for (int side = 0; side < 2; side++) {
    groups[side].bytes = aligned_alloc(PAGE, group_max);
    memset(groups[side].bytes, 0x5a, group_max);
  }
  file = open(arguments[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (file < 0) die(arguments[1]);
  write_whole_file();
  wake = eventfd(0, EFD_NONBLOCK);
  pthread_t writer;
  pthread_create(&writer, NULL, write_groups, NULL);

  int server = listen_on_any_port(), poll = epoll_create1(0), wake_poll = epoll_create1(0), filling = 0, is_writing = 0;
  struct epoll_event event = {.events = EPOLLIN, .data.fd = server}, events[256];
  epoll_ctl(poll, EPOLL_CTL_ADD, server, &event);
  event.data.fd = wake;
  epoll_ctl(poll, EPOLL_CTL_ADD, wake, &event);
  epoll_ctl(wake_poll, EPOLL_CTL_ADD, wake, &event);

  while (!stopping) {
    struct group *group = &groups[filling];
    // A full group can only wait for the writer, on a poll of its own: the sockets would not let it sleep.
    int is_full = is_writing && group->size == group_max;
    int ready = epoll_wait(is_full ? wake_poll : poll, events, 256, -1);
    for (int index = 0; index < ready; index++) {
      int from = events[index].data.fd;
      if (from == server) {
        int connection = accept4(server, NULL, NULL, SOCK_NONBLOCK);
        if (connection < 0 || connection >= CONNECTIONS_MAX) continue;
        int on = 1;
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        received[connection] = in_group[0][connection] = in_group[1][connection] = answered[connection] = 0;
        event.data.fd = connection;
        epoll_ctl(poll, EPOLL_CTL_ADD, connection, &event);
      } else if (from == wake) {
        uint64_t ignored;
        if (read(wake, &ignored, sizeof ignored) > 0) {
          is_writing = 0;
          answer(1 - filling);
        }
      } else if (group->size < group_max) {
        size_t room = group_max - group->size;
        ssize_t got = recv(from, group->bytes + group->size, room < TURN_BYTES ? room : TURN_BYTES, 0);
        if (got > 0) {
          group->size += (size_t)got;
          received[from] += (uint64_t)got;
        } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
          close(from);
        }
      }
    }
    if (!is_writing && group->size > 0) {
      memcpy(in_group[filling], received, sizeof received);
      pthread_mutex_lock(&lock);
      writing = group;
      pthread_cond_signal(&has_work);
      pthread_mutex_unlock(&lock);
      is_writing = 1;
      filling = 1 - filling;
      groups[filling].size = 0;
    }
  }
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  printf("%llu %llu %.3f\n", group_count, byte_count, cpu);
  return 0;
}
