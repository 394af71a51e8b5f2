'use strict'
// What the volume holds, in bytes; counted at most once a minute, because a big one has many files.
const { readdir, stat, statfs } = require('fs').promises
const path = require('path')

module.exports = function diskUsage (dir) {
  let counted = { at: 0 }
  return async () => {
    if (Date.now() - counted.at > 60e3) counted = { at: Date.now(), value: await count(dir) }
    const volume = await statfs(dir).catch(() => null)
    return { ...counted.value, volumeFree: volume && volume.bavail * volume.bsize, volumeSize: volume && volume.blocks * volume.bsize }
  }
}

async function count (dir) {
  const [total, db, blobs] = await Promise.all([dir, path.join(dir, 'db2'), path.join(dir, 'blobs')].map(treeSize))
  return { total: total.bytes, db: db.bytes, blobs: blobs.bytes, blobCount: blobs.files }
}

async function treeSize (dir) {
  const size = { bytes: 0, files: 0 }
  for (const entry of await readdir(dir, { withFileTypes: true }).catch(() => [])) {
    const name = path.join(dir, entry.name)
    if (entry.isDirectory()) {
      const inner = await treeSize(name)
      size.bytes += inner.bytes
      size.files += inner.files
    } else if (entry.isFile()) {
      const file = await stat(name).catch(() => null) // it may be gone by now
      if (file) { size.bytes += file.blocks * 512; size.files++ }
    }
  }
  return size
}
