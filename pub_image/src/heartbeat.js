'use strict'
// While the pub really serves, write the machine's uptime into a small file each second. The health check
// (pub-health) compares it with the uptime now: no process of ours to start, no clock that can jump, no
// connection to the public port, and a database that is busy for minutes does not matter.
const fs = require('fs')

module.exports = function startHeartbeat ({ file, port, isServing }) {
  fs.rmSync(file, { force: true }) // a file from before a restart says nothing about this process
  const fd = fs.openSync(file, 'w', 0o600)
  const isAlive = () => isServing() && portIsOpen(port)
  const beat = () => {
    if (!isAlive()) return
    const [uptime] = fs.readFileSync('/proc/uptime', 'utf8').split('.')
    fs.writeSync(fd, uptime.padEnd(12) + '\n', 0) // in place and of one length: a reader never sees half of it
  }
  const timer = setInterval(beat, 1000)
  return { beat, isAlive, stop: () => { clearInterval(timer); fs.rmSync(file, { force: true }) } }
}

// connecting to it would make secret-handshake log an error each time
function portIsOpen (port) {
  const wanted = ':' + port.toString(16).toUpperCase().padStart(4, '0')
  return ['/proc/net/tcp', '/proc/net/tcp6'].some((table) => {
    const lines = fs.existsSync(table) ? fs.readFileSync(table, 'utf8').split('\n') : []
    return lines.some((line) => {
      const [, local, , state] = line.trim().split(/\s+/)
      return state === '0A' && local.endsWith(wanted)
    })
  })
}
