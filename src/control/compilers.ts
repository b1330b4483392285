import type { FastifyServerOptions } from 'fastify'

type SchemaController = NonNullable<FastifyServerOptions['schemaController']>

/**
 * For fastify's schemaController, in the place of its own compilers, which are a hundred files that a start would load: the routes check
 * with the schemas that the documentation is made of (see routes.ts), and answers are plain JSON.
 */
export const noCompilers = {
  compilersFactory: {
    buildValidator: () => () => () => true,
    buildSerializer: () => () => (data: unknown) => JSON.stringify(data),
  },
} as unknown as SchemaController // typed as what Ajv makes, of which fastify only calls the last function
