/**
 * What a crash may keep or lose of a directory's names, one by one; a rename is one change. `withDirectory`: removed with all of the directory, which is
 * durable when its own name's removal is.
 */
export type NameChange<Inode> =
  | { readonly type: 'put'; readonly name: string; readonly inode: Inode }
  | { readonly type: 'rename'; readonly from: string; readonly to: string }
  | { readonly type: 'remove'; readonly name: string; readonly withDirectory?: string }

export function applyChange<Inode>(names: Map<string, Inode>, change: NameChange<Inode>): void {
  if (change.type === 'put') names.set(change.name, change.inode)
  else if (change.type === 'remove') names.delete(change.name)
  else {
    const inode = names.get(change.from)
    if (inode === undefined) return // the change that it built on was lost, so this one is, too
    names.delete(change.from)
    names.set(change.to, inode)
  }
}

export function systemError(code: string, what: string): Error {
  return Object.assign(new Error(`${code}: ${what}`), { code, errno: -1 })
}
