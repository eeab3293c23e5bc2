#!/bin/sh
# Starts this server, on the port and the data it had. It goes on when this script and the terminal
# have ended; `pid` and `started` say which process it is.
cd "$(dirname "$0")" || exit 1
nohup COMMAND >>log 2>&1 </dev/null &
pid=$!
if [ -r /proc/$pid/stat ]; then
    started=$(sed 's/.*) //' /proc/$pid/stat | cut -d ' ' -f 20)
else
    started=$(ps -o lstart= -p $pid)
fi
echo "$started" >started
echo "$pid" >pid
