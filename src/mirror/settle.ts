/**
 * Like Promise.all, but returns only when all of them have ended, also where one fails: nothing of a failed operation goes on
 * behind the back of who is told of the failure.
 */
export async function settleAll<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  const results = await Promise.allSettled(promises)
  return results.map(result => {
    if (result.status === 'rejected') throw result.reason
    return result.value
  })
}
