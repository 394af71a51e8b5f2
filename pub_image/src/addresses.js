'use strict'
// Where a pub may dial to. Its owner and any member can name an address (conn.add, a `pub` message), so without
// this check a stranger could make the hub knock at its own private network.
const dns = require('dns')
const net = require('net')
const Refused = require('./refused')

const inward = new net.BlockList()
for (const [range, bits] of [
  ['0.0.0.0', 8], ['10.0.0.0', 8], ['100.64.0.0', 10], ['127.0.0.0', 8], ['169.254.0.0', 16], ['172.16.0.0', 12],
  ['192.0.0.0', 24], ['192.168.0.0', 16], ['198.18.0.0', 15], ['224.0.0.0', 4], ['240.0.0.0', 4]
]) inward.addSubnet(range, bits, 'ipv4')
for (const [range, bits] of [
  ['::', 96], ['64:ff9b::', 96], ['64:ff9b:1::', 48], ['2002::', 16], ['fc00::', 7], ['fe80::', 10], ['fec0::', 10], ['ff00::', 8]
]) inward.addSubnet(range, bits, 'ipv6')

// IPv4 written as IPv6 (::ffff:10.0.0.1) is matched against the IPv4 ranges by BlockList itself
const isPrivateIp = (ip) => inward.check(ip.split('%')[0], net.isIPv6(ip) ? 'ipv6' : 'ipv4')

function isPrivateHost (host) {
  const bare = host.replace(/^\[|\]$/g, '')
  return net.isIP(bare) ? isPrivateIp(bare) : /^(.*\.)?localhost\.?$/i.test(bare)
}

const refusal = (host) => new Refused('PRIVATE_HOST', `${host} is, or leads to, a private address`)

// Throws for a host that is private or whose name leads to a private address.
async function refusePrivate (host) {
  if (isPrivateHost(host)) throw refusal(host)
  await dns.promises.lookup(host, { all: true }).then((found) => {
    if (found.some((f) => isPrivateIp(f.address))) throw refusal(host)
  })
}

// A name can be public when it is added and lead inward an hour later, so look again at each dial:
// the address at ssb.connect, the name where it is resolved for the very connection.
function guardDialling (ssb) {
  ssb.connect.hook(function (fn, args) {
    const [address, cb] = args
    const host = (/^net:(.+):\d+~/.exec(address) || [])[1]
    return host && isPrivateHost(host) ? cb(refusal(host)) : fn.apply(this, args)
  })
  const lookup = dns.lookup
  dns.lookup = (name, ...rest) => {
    const cb = rest.pop()
    if (net.isIP(name)) return lookup(name, ...rest, cb) // also how our own port is opened on 0.0.0.0
    lookup(name, ...rest, (err, found, family) => {
      const leadsInward = !err && [].concat(found).some((f) => isPrivateIp(f.address || f))
      leadsInward ? cb(refusal(name)) : cb(err, found, family)
    })
  }
}

module.exports = { isPrivateHost, refusePrivate, guardDialling }
