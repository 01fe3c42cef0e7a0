// `epic up`: the three roles in one process, over one engine and one copy of the weights. Loopback, no etcd, no GPU.
#ifndef EPIC_CLIENT_UP_H_
#define EPIC_CLIENT_UP_H_

namespace epic {

// argv[0] is "up". Returns the process' exit code once SIGTERM or SIGINT has ended everything in good order.
int RunUp(int argc, char** argv);

}  // namespace epic

#endif  // EPIC_CLIENT_UP_H_
